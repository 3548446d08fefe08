"""Bodies of many records straight into typed rows, by a decoder made for one schema. It refuses nothing by itself.

What does not fit its types exactly (a number in quotes, a missing feature, another form) is left to `codec`, which
understands more, and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple

from perennial.serving.protocol.columns import Columns

_TYPES: Mapping[str, Any] = {"numeric": float | None, "boolean": Any, "datetime": Any}
_FORMS = ("dataframe_records", "instances", "inputs")


@dataclass(frozen=True)
class Records:
    """A body that fits.

    Attributes:
        columns: The features, numbers as float or None, truth values and moments as they came, all else as str or None.
        others: The id's and the time's columns that the first record has.
        extras: What stands beside the records.
    """

    columns: Columns
    others: Mapping[str, list[Any]]
    extras: Mapping[str, Any] = field(default_factory=dict)


def records_decoder(
    columns: Sequence[str], kinds: Sequence[str], others: Sequence[str]
) -> Callable[[bytes], Records | None]:
    """A function from a body to its records; None where it does not fit.

    Args:
        columns, kinds: The features, all of which must be there.
        others: Columns that may be there.
    """
    beside = [name for name in dict.fromkeys(others) if name not in columns]
    fields: list[Any] = [(f"c{index}", _TYPES.get(kind, str | None)) for index, kind in enumerate(kinds)]
    fields += [(f"o{index}", Any, UNSET) for index in range(len(beside))]
    names = {f"c{index}": name for index, name in enumerate(columns)}
    names |= {f"o{index}": name for index, name in enumerate(beside)}
    row = msgspec.defstruct("Row", fields, rename=names, gc=False)
    forms: list[Any] = [(name, list[row] | UnsetType, UNSET) for name in _FORMS]  # type: ignore[valid-type]
    body = msgspec.defstruct(
        "Body",
        [*forms, ("ids", Any, None), ("params", Any, None), ("signature_name", Any, None)],
        forbid_unknown_fields=True,
    )
    decode = msgspec.json.Decoder(body).decode

    def records(content: bytes) -> Records | None:
        try:
            found: Any = decode(content)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        given = [part for name in _FORMS if (part := getattr(found, name)) is not UNSET]
        if len(given) != 1 or not given[0]:
            return None
        cells = list(zip(*map(astuple, given[0]), strict=True))
        values = {
            name: [None if value is UNSET else value for value in part]
            for name, part in zip(beside, islice(cells, len(columns), None), strict=True)
            if part[0] is not UNSET
        }
        return Records(Columns(cells[: len(columns)], typed=True), values, {"ids": found.ids, "params": found.params})

    return records
