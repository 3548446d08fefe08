"""One model in a notebook: what the commands of its name do, on frames. No second path: flows and steps are run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from perennial.interactive.shown import Result, Told

if TYPE_CHECKING:
    import pandas as pd

    from perennial.definition import ModelDefinition
    from perennial.workspace import Workspace


class Home(Protocol):
    """Where a model lives: its workspace, and what flows run in."""

    workspace: Workspace

    def running(self) -> AbstractContextManager[None]:
        """Within it, flows run."""
        ...


class Model:
    """A defined model. Every call reads its definition anew.

    Args:
        installation: Where it lives.
        name: Its name.
    """

    def __init__(self, installation: Home, name: str) -> None:
        self._installation = installation
        self.name = name

    @property
    def workspace(self) -> Workspace:
        return self._installation.workspace

    @property
    def definition(self) -> ModelDefinition:
        return self.workspace.definition(self.name)

    def ingest(
        self, rows: pd.DataFrame | str | Path | None = None, *, as_of: datetime | None = None, history: bool = False
    ) -> Result:
        """Validate rows (a frame, a file, or what is new in the source) and put them into the tables.

        Args:
            history: The rows are the past: they count as known when they happened.
        """
        with _as_file(rows) as path, self._installation.running():
            from flows.ingest import ingest

            found = ingest(self.name, files=[path] if path else None, as_of=as_of, history=history)
        return Result(f"{self.name}: {found['kept']} of {found['rows']} rows kept", found)

    def score(self, rows: pd.DataFrame, *, as_of: datetime | None = None) -> pd.DataFrame:
        """Score rows with the champion, and log them: the frame that `perennial score` writes.

        What the champion's training never saw is a Python warning.
        """
        import warnings

        import pandas as pd

        with _as_file(rows) as path, self._installation.running():
            from flows.score import score
            from perennial.model.answers.noticed import say

            output = f"{path}.scored.parquet"
            for found in score(self.name, input=path, output=output, as_of=as_of)["warnings"]:
                warnings.warn(f"{self.name}: {say(found)}", stacklevel=2)
            return pd.read_parquet(output)

    def label(self, rows: pd.DataFrame, *, as_of: datetime | None = None, author: str = "notebook") -> Result:
        """Add late truth: a frame with the model's id and target columns, and perhaps labelled_at."""
        from dataclasses import asdict

        from tasks.rows.labels import label_frame

        receipt = label_frame(
            self.workspace.store, self.definition, rows, as_of=as_of or datetime.now(UTC), author=author, witness=True
        )
        return Result(f"{self.name}: {receipt.new} new labels", asdict(receipt))

    def reviews(self, by: str, *, limit: int = 20, as_of: datetime | None = None) -> pd.DataFrame:
        """What this person is asked to look at next: id, time, score (unless hidden), again, and the features."""
        import pandas as pd

        from tasks.steps.review.answers import desk_of

        definition = self.definition
        items, _ = desk_of(self.workspace.store, definition).ask(by, as_of or datetime.now(UTC), limit)
        hidden = definition.review.hide_score
        rows = [
            {"id": item.id, "time": item.time, **({} if hidden else {"score": item.score}), "again": item.again}
            | item.features
            for item in items
        ]
        return pd.DataFrame(rows)

    def answer(
        self, name: str, truth: object = None, *, by: str, cannot_tell: bool = False, skip: bool = False,
        undo: bool = False, seconds: float | None = None, note: str = "", as_of: datetime | None = None,
    ) -> Result:  # fmt: skip
        """Answer a row that was put up for review, as `perennial reviews MODEL answer` does."""
        from tasks.steps.review.answers import answer, desk_of

        desk = desk_of(self.workspace.store, self.definition)
        says = {"cannot_tell": cannot_tell, "skip": skip, "undo": undo}
        raw = {"id": name, "truth": truth, "seconds": seconds, "note": note} | {k: True for k, v in says.items() if v}
        done = answer(desk, [desk.read(raw, at=as_of or datetime.now(UTC), author=by)])
        return Result(f"{self.name}: {done.written} answers, {done.labels} labels", done.to_dict())

    def check(self, *, as_of: datetime | None = None, dry_run: bool = False) -> Told:
        """Check the champion: a verdict with its reasons, recorded and acted on; with `dry_run`, only told."""
        from tasks.check.decision import Decision
        from tasks.check.text import render_text

        if dry_run:
            from tasks.steps.monitor import run_check

            found = run_check(self.workspace, self.definition, as_of=as_of or datetime.now(UTC)).to_dict()
        else:
            with self._installation.running():
                from flows.monitor import monitor

                found = monitor(self.name, as_of=as_of)
        told = render_text(Decision.from_dict(found), found.get("examples", ()))
        return Told(f"{self.name}: {found['verdict']}", found, told)

    def retrain(
        self, *, as_of: datetime | None = None, decision_id: str | None = None, force: bool = False,
        again: bool = False, promote: bool = False,
    ) -> Result:  # fmt: skip
        """Train a challenger; the gate promotes it, lets it wait or keeps the champion.

        Args:
            again: While developing: judge on the same newest rows once more; it never replaces a live champion.
            promote: With `again`: it does.
        """
        with self._installation.running():
            from flows.retrain import retrain

            found = retrain(
                self.name, as_of=as_of, decision_id=decision_id, force=force, again=again, promote=promote
            )  # fmt: skip
        return Result(f"{self.name}: version {found['version']}: {found['gate']}", found)

    def ledger(self) -> pd.DataFrame:
        """Every decision, oldest first."""
        import pandas as pd

        entries = self.workspace.ledger(self.name).entries()
        shown = ("as_of", "verdict", "champion_version", "reasons", "outcome", "decision_id")
        return pd.DataFrame([{name: entry.get(name) for name in shown} for entry in entries], columns=list(shown))

    def history(self) -> pd.DataFrame:
        """Who was champion since when, and why, oldest first."""
        import pandas as pd

        lines = self.workspace.registry.history(self.name)
        return pd.DataFrame([line.__dict__ for line in lines]).drop(columns="recorded_at", errors="ignore")

    def statistics(self, column: str | None = None, *, every: timedelta | None = None) -> pd.DataFrame:
        """What each check's window looked like, a row a window and column: counts, moments, quantiles, frequent values.

        Args:
            column: Only this one; `(prediction)` is what the champion answered.
            every: A row for each period of this length instead, of windows that lie side by side.
        """
        from tasks.steps.shown.series import statistics_series

        return statistics_series(self.workspace.store, self.name, column=column, every=every)

    def quality(self, *, as_of: datetime | None = None) -> pd.DataFrame:
        """What the champion's answers were worth, one row between two checks: rows, labelled, and each metric."""
        import pandas as pd

        from tasks.steps.timeline import build_timeline

        found = build_timeline(self.workspace, self.definition, as_of=as_of or datetime.now(UTC))
        rows = [
            {"start": item.start, "end": item.end, "rows": item.rows, "labelled": item.labelled,
             "version": item.version, "verdict": item.verdict, **item.live}
            for item in found.periods
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def backtest(
        self, *, policies: list[str | Path] | None = None, every: timedelta | None = None, jobs: int = 2
    ) -> Told:
        """Replay the history under several policies; recommends one, or says why it can't."""
        import pandas as pd

        from tasks.backtest.report import COLUMNS, advice_lines, summary, table_rows, to_dict
        from tasks.backtest.run import backtest_model, write_report

        paths = [Path(path) for path in policies or []]
        found = backtest_model(self.workspace, self.definition, paths, every=every, jobs=jobs)
        table = pd.DataFrame(table_rows(found), columns=[name.strip() for name in COLUMNS])
        text = "\n".join([summary(found), "", table.to_string(index=False), "", *advice_lines(found)])
        return Told(f"{self.name}: backtest", to_dict(found) | write_report(self.workspace, found), text)

    def __repr__(self) -> str:
        return f"{self._installation!r}.model({self.name!r})"

    def _repr_html_(self) -> str:
        definition = self.definition
        champion = self.workspace.registry.reign(self.name)
        live = f"version {champion.version} since {champion.at:%Y-%m-%d %H:%M}" if champion else "no champion yet"
        values = {"task": definition.task, "target": definition.data.target, "champion": live,
                  "why": champion.reason if champion else None}  # fmt: skip
        return Result(self.name, values)._repr_html_()


@contextmanager
def _as_file(rows: pd.DataFrame | str | Path | None) -> Iterator[str | None]:
    """A frame as a parquet file for as long as the block lasts; a file as it is."""
    if rows is None or isinstance(rows, str | Path):
        yield None if rows is None else str(Path(rows).expanduser().resolve())
        return
    with tempfile.TemporaryDirectory(prefix="perennial-rows-") as folder:
        path = Path(folder) / "rows.parquet"
        rows.to_parquet(path)
        yield str(path)
