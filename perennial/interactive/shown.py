"""Results that show themselves in a notebook and read as mappings. They compute nothing."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any


class Result(Mapping[str, Any]):
    """What a run gave, by name: a mapping, with its names as attributes, that shows itself as a table."""

    def __init__(self, title: str, values: Mapping[str, Any]) -> None:
        self._title = title
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name}; it has {', '.join(self._values)}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __repr__(self) -> str:
        lines = [f"{name}: {_short(value)}" for name, value in self._values.items()]
        return "\n  ".join([self._title, *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(_short(value))}</td></tr>"
            for name, value in self._values.items()
        )
        return f"<b>{html.escape(self._title)}</b><table>{rows}</table>"


class Told(Result):
    """A result whose text, as the command prints it, is what is shown."""

    def __init__(self, title: str, values: Mapping[str, Any], text: str) -> None:
        super().__init__(title, values)
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self._text)}</pre>"


def _short(value: Any, most: int = 300) -> str:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        text = "; ".join(value) or "-"
    else:
        text = "-" if value is None or value == [] else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"
