"""What each page shows, as plain values for its template: from glances, records, figures and neighbours. No markup."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deployments.web.known import reading
from deployments.web.known.glance import Glance, Waiting, urgency, waiting_for
from deployments.web.known.neighbours import Neighbours
from deployments.web.known.watch import Watcher
from deployments.web.shown import pictures
from deployments.web.shown.words import is_run
from perennial.errors import NotFoundError, ServiceError
from perennial.workspace import Workspace
from tasks.check.told.sentences import sections

SHOWN_CHECKS = 10
SPARK_CHECKS = 26
_MOST_ROWS = 50


@dataclass(frozen=True)
class Row:
    """A line of the overview."""

    glance: Glance
    waiting: tuple[Waiting, ...]
    spark: str
    running: int
    next_check: datetime | None
    paused: bool


@dataclass
class Pages:
    """Makes every page's values."""

    workspace: Workspace
    watcher: Watcher
    neighbours: Neighbours

    def overview(self, now: datetime) -> dict[str, Any]:
        """All models, those first that need a person."""
        rows = [self._row(glance, now) for glance in self.watcher.glances.values()]
        rows.sort(key=lambda row: urgency(row.waiting, row.glance))
        return {"rows": rows, "waiting": sum(bool(row.waiting) for row in rows), "reading": self.watcher.reading}

    def model(self, name: str, now: datetime) -> dict[str, Any]:
        """One model: its story, what is measured now, what the next check would need, runs, deliveries, acts."""
        glance = self._glance(name)
        store, ledger = self.workspace.store, self.workspace.ledger(name)
        newest = ledger.newest()
        figures = reading.figures(store, name)
        return {
            "row": self._row(glance, now),
            "newest": newest,
            "story": pictures.story(glance, figures),
            "apart": pictures.stretch(glance.points)[1],
            "figures": pictures.figures_table(glance, figures)[:_MOST_ROWS],
            "columns": _columns(newest),
            "slices": pictures.slices(figures),
            "control": pictures.newest_of(figures, "control"),
            "live": pictures.newest_of(figures, "live"),
            "first": pictures.newest_of(figures, "first"),
            "ages": [] if newest is None else newest["evidence"].get("coverage_by_age", []),
            "checks": glance.points[::-1][:SHOWN_CHECKS],
            "reigns": glance.reigns[::-1][:200],
            "runs": self.neighbours.runs.get(name, [])[:20],
            "deliveries": [self._delivery(name, item) for item in reading.deliveries(store, name)],
            "people_acts": ledger.acts()[::-1][:20],
        }

    def checks(self, name: str) -> dict[str, Any]:
        """Every check of a model, newest first."""
        glance = self._glance(name)
        return {"glance": glance, "checks": glance.points[::-1]}

    def column(self, name: str, column: str) -> dict[str, Any]:
        """A column's drift and statistics over time, beside its ordinary range."""
        glance = self._glance(name)
        windows = reading.column_history(self.workspace.store, name, column)
        history = reading.signal_history(self.workspace.store, name)
        names = (f"drift of {column}", f"drift of {column} (missing)")
        drift = [
            (datetime.fromisoformat(item.as_of), signal)
            for item in history
            for signal in item.signals
            if signal.name in names
        ]
        if not windows and not drift:
            raise NotFoundError(f"no check of {name} has looked at a column {column[:80]!r}", "See the model's page")
        absent, reference = "", None
        if glance.reign is not None:
            try:
                reference = self._reference(name, glance.reign.version)
            except ServiceError as error:
                absent = str(error)
        ordinary = reading.ordinary_range(reference, column)
        return {
            "glance": glance, "column": column, "absent": absent, "windows": windows[::-1][:_MOST_ROWS],
            "stands_for": reading.stands_for(reference, column), "ordinary": ordinary,
            "shown": pictures.column(column, windows, drift, ordinary, glance.window),
        }  # fmt: skip

    def decision(self, name: str, decision_id: str) -> dict[str, Any]:
        """A decision: why, every signal with its history, what was done then, what would have changed it."""
        glance = self._glance(name)
        known = [point for point in glance.points if point.decision_id.startswith(decision_id)]
        if len(known) != 1:
            # The watcher may be a moment behind.
            entry = self.workspace.ledger(name).entry(decision_id)
        else:
            entry = self.workspace.ledger(name).entry(known[0].decision_id)
        history = reading.signal_history(self.workspace.store, name)
        before = [
            item for item in history if datetime.fromisoformat(item.as_of) <= datetime.fromisoformat(entry["as_of"])
        ]
        sparks = pictures.signal_sparks(entry["signals"], before)
        reign = next((line for line in glance.reigns if line.decision_id == entry["decision_id"]), None)
        return {
            "glance": glance,
            "entry": entry,
            "sparks": sparks,
            "beside": list(sections(entry["evidence"])),
            "reign": reign,
            "report": reading.report_of(self.workspace, entry),
            "examples": reading.examples_of(self.workspace, entry),
            "prefect": f"{self.neighbours.prefect.ui}/runs/flow-run/" if is_run(entry["claimed_by"]) else "",
            "mlflow": f"{self.neighbours.mlflow.url}/#/models/{name}/versions/",
            "deliveries": self._reported(name, entry),
            "asks": entry["verdict"] == "repair" and not entry.get("acceptance")
            and glance.last is not None and glance.last.decision_id == entry["decision_id"],
        }  # fmt: skip

    def versions(self, name: str) -> dict[str, Any]:
        """Every version of a model with what the gate said."""
        glance = self._glance(name)
        absent, found = "", []
        try:
            found = self.neighbours.mlflow.versions(name)
        except ServiceError as error:
            absent = str(error)
        reigned = {line.version for line in glance.reigns}
        return {"glance": glance, "versions": found, "absent": absent, "reigned": reigned}

    def version(self, name: str, number: int) -> dict[str, Any]:
        """One version: lineage, what the gate found, curves, and what can be done with it."""
        shown = self.versions(name)
        glance: Glance = shown["glance"]
        if shown["absent"]:
            return shown | {"number": number, "version": None}
        found = next((item for item in shown["versions"] if item["version"] == number), None)
        if found is None:
            raise NotFoundError(f"{name} has no version {number}", "See the model's versions")
        run = self.neighbours.mlflow.training_run(found["run_id"])
        gate = self.neighbours.mlflow.artifact(found["run_id"], "gate.json")
        champion = glance.reign.version if glance.reign else None
        others = [item["version"] for item in shown["versions"] if item["version"] != number]
        against = champion if champion not in (None, number) else int(found["tags"].get("beaten_version") or 0) or None
        return shown | {
            "number": number, "version": found, "run": run, "gate": json.loads(gate) if gate else None,
            "curves": self._curves(found["run_id"], run["metrics"]), "champion": champion, "others": others,
            "against": against, "reigns": [line for line in glance.reigns if line.version == number],
            "waits": found["tags"].get("approval") == "pending",
            "mlflow": f"{self.neighbours.mlflow.url}/#/models/{name}/versions/{number}",
            "importance": _importance(run["metrics"]),
        }  # fmt: skip

    def comparison(self, name: str, left: int, right: int) -> dict[str, Any]:
        """Two versions on the same rows, where they were compared."""
        found = reading.comparison(self.workspace, name, left, right)
        drawn = []
        if found and found["left"]["calibration"]:
            for side in (found["left"], found["right"]):
                points = [(place / 100, value) for place, value in enumerate(side["calibration"]) if value is not None]
                title = f"Calibration of version {side['version']}"
                drawn.append(pictures.curve(title, "probability said", "share that came true", points))
        return {"glance": self._glance(name), "left": left, "right": right, "found": found, "curves": drawn}

    def quarantine(self, name: str, now: datetime, rule: str) -> dict[str, Any]:
        """What lies in quarantine, by rule, and the rows themselves."""
        from tasks.intake.quarantine import OPEN, age_text, entries, overview, with_rows
        from tasks.steps.quarantine import Chosen

        definition, store = self.workspace.definition(name), self.workspace.store
        found = overview(store, definition)
        lines = entries(store, definition)
        lying = Chosen(rule=rule or None).among(lines[lines["state"] == OPEN])
        newest = with_rows(store, definition, lying.tail(_MOST_ROWS))
        shown = [_entry(line) for line in newest.to_dict("records")][::-1]
        return {
            "glance": self._glance(name), "found": found, "entries": shown, "rule": rule, "chosen": len(lying),
            "age": lambda at: age_text(now - at),
        }  # fmt: skip

    def backtest(self, name: str) -> dict[str, Any]:
        """The newest backtest: policies side by side, the recommendation and the change to copy."""
        runs = [run for run in self.neighbours.runs.get(name, []) if run.flow == "backtest"]
        return {"glance": self._glance(name), "found": reading.backtest(self.workspace, name), "runs": runs[:5]}

    def _glance(self, name: str) -> Glance:
        """A model's glance.

        Raises:
            NotFoundError: No definition has that name; the nearest is proposed.
        """
        if name in self.watcher.glances:
            return self.watcher.glances[name]
        self.workspace.definition(name)
        return Glance(name)

    def _row(self, glance: Glance, now: datetime) -> Row:
        waiting = waiting_for(glance, self.neighbours.waiting.get(glance.model, []))
        spark = pictures.spark([point.loss for point in glance.points[-SPARK_CHECKS:]])
        running = sum(run.active for run in self.neighbours.runs.get(glance.model, []))
        paused = ("monitor", glance.model) in self.neighbours.paused
        return Row(glance, tuple(waiting), spark, running, glance.next_check(now), paused)

    def _delivery(self, name: str, item: dict[str, Any]) -> dict[str, Any]:
        at = item["ingested_at"].to_pydatetime()
        return item | {"report": reading.validation_report(self.workspace, name, item["batch_id"], at)}

    def _reported(self, name: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """The deliveries with a report of the time that a decision's window covers, newest first."""
        until = datetime.fromisoformat(entry["as_of"])
        window = entry["evidence"].get("window_start")
        since = datetime.fromisoformat(window) if window else until - timedelta(days=7)
        known = reading.deliveries(self.workspace.store, name, most=10_000)
        inside = [self._delivery(name, item) for item in known if since < item["ingested_at"] <= until]
        return [item for item in inside if item["report"]][:6]

    def champion_reference(self, name: str) -> bytes | None:
        """What the champion was trained on, as its run has it; None without one, or where it can't be had now."""
        glance = self.watcher.glances.get(name)
        if glance is None or glance.reign is None:
            return None
        try:
            return self._reference(name, glance.reign.version)
        except ServiceError:
            return None

    def _reference(self, name: str, version: int) -> bytes | None:
        found = next((item for item in self.neighbours.mlflow.versions(name) if item["version"] == version), None)
        return None if found is None else self.neighbours.mlflow.artifact(found["run_id"], "reference.json")

    def _curves(self, run_id: str, metrics: dict[str, float]) -> list[pictures.Curve]:
        told = {"roc": ("ROC", "false positive rate", "true positive rate"),
                "precision_recall": ("Precision by recall", "recall", "precision"),
                "calibration": ("Calibration", "probability said", "share that came true")}  # fmt: skip
        return [
            pictures.curve(title, across, up, self.neighbours.mlflow.curve(run_id, name))
            for name, (title, across, up) in told.items()
            if f"curve/{name}" in metrics
        ]


def _columns(entry: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The columns that the newest check told of, those furthest beyond their limit first."""
    if entry is None:
        return []
    found = []
    for signal in entry["signals"]:
        if signal["kind"] != "drift" or not signal["name"].startswith("drift of "):
            continue
        column = signal["name"].removeprefix("drift of ").removesuffix(" (missing)")
        ratio = signal["value"] / signal["threshold"] if signal["threshold"] else None
        found.append(signal | {"column": column, "ratio": ratio})
    told = {item["column"] for item in found}
    window = (entry["evidence"].get("window") or {}).get("columns", {})
    rest = [{"column": name, "ratio": None, "fired": False, "detail": ""} for name in window if name not in told]
    return sorted(found, key=lambda item: -(item["ratio"] or 0)) + rest


def _importance(metrics: dict[str, float]) -> list[tuple[str, float]]:
    found = [
        (name.removeprefix("importance/"), value) for name, value in metrics.items() if name.startswith("importance/")
    ]
    return sorted(found, key=lambda item: -item[1])[:15]


def _entry(line: dict[Any, Any]) -> dict[str, Any]:
    plain = {str(name): None if value != value else value for name, value in line.items()}
    return plain | {"row": json.loads(line["row"]), "rules": json.loads(line["rules"])}
