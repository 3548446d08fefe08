"""An installation in a notebook: its settings for as long as a call lasts, its models, a new one from a frame."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perennial.interactive.model import Model
from perennial.interactive.shown import Told
from perennial.settings import Settings, load_settings
from perennial.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd


def open_installation(
    home: str | Path | None, *, models: str | Path | None = None, expectations: str | Path | None = None
) -> Installation:
    """See `perennial.open`."""
    given = {"PERENNIAL_HOME": home, "PERENNIAL_MODELS": models, "PERENNIAL_EXPECTATIONS": expectations}
    named = {
        name: os.pathsep.join(str(Path(part).expanduser().resolve()) for part in str(value).split(os.pathsep))
        for name, value in given.items()
        if value is not None
    }
    return Installation(named)


class Installation:
    """One home with its definitions.

    Args:
        environment: The variables that this installation is known by; the process's own are as they were after a call.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._runs = False
        with self.active() as settings:
            self.workspace = Workspace(settings)

    @contextmanager
    def active(self) -> Iterator[Settings]:
        """Within it, flows and servers see this installation's settings."""
        before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        try:
            yield load_settings()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, flows run: on the server of this home, or on one that lives as long as the block.

        A block around several calls spares each of them the start of a server.
        """
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        from perennial.operate.servers import prefect_server

        if self._runs:  # within such a block
            yield
            return
        with self.active() as settings, prefect_server(settings):
            self._runs = True
            try:
                yield
            finally:
                self._runs = False

    def model(self, name: str) -> Model:
        """One model.

        Raises:
            NotFoundError: It is not defined; the nearest name is proposed.
            DefinitionError: Its definition breaks a rule.
        """
        self.workspace.definition(name)
        return Model(self, name)

    def models(self) -> pd.DataFrame:
        """The defined models, one row each."""
        import pandas as pd

        found = self.workspace.definitions().values()
        rows = [
            (item.name, item.task, item.data.target, len(item.features.columns), item.description) for item in found
        ]
        return pd.DataFrame(rows, columns=["model", "task", "target", "features", "description"])

    def init(self, name: str, rows: pd.DataFrame, *, label_delay: timedelta | None = None, **said: Any) -> Told:
        """Propose a definition and a suite from a frame, write both, and keep the rows as the model's source.

        Args:
            said: `target`, `time`, `id` (a tuple), `task`, `positive`, `estimator`, `without`, `description`: as the
                flags of `perennial init`.
        """
        from tasks.proposal.placing import places_for, with_source, write
        from tasks.proposal.propose import Answers, look_at_table, propose

        places = places_for(name, self.workspace.settings)
        answers = Answers(name, {"parquet": str(places.rows)}, "a frame", label_delay=label_delay, **said)
        proposal = with_source(propose(look_at_table(rows), answers, as_of=datetime.now(UTC)), places)
        if proposal.frame is None:
            places.rows.parent.mkdir(parents=True, exist_ok=True)
            rows.to_parquet(places.rows)
        written = write(proposal, places)
        told = [f"look at: {text}" for text in proposal.doubts] + [f"mind: {text}" for text in proposal.caveats]
        values = {"definition": str(places.definition), "suite": str(places.suite), "doubts": list(proposal.doubts),
                  "caveats": list(proposal.caveats)}  # fmt: skip
        return Told(f"{name} is defined", values, "\n".join([proposal.text, *told, f"wrote {written[-1]}"]))

    def __repr__(self) -> str:
        return f"perennial.open({str(self.workspace.home)!r})"
