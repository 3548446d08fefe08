"""What two years do to a home: disk and times at the end beside those of the first months, with and without pruning.

    python benchmarks/growth.py [--weeks 104] [--trainings-every 4] [--share 5] [--without] [--json FILE]

A weekly model of every fifth flight (benchmarks/history.py: batches, predictions and labels of each week, under new
ids), trained on the last thirteen weeks. Each week's check is recorded, the first one's report kept for it; every
fourth week a challenger is trained, of which most are kept out, and then `prune` runs with the definition's defaults.
The calendar is simulated, so files are given the time of their week, and files of the tables need no quiet time.
Printed are the disk by kind, and wall and CPU milliseconds of what `perennial status` and a check do (the median of
five), with the ratio of the end to week 40, when the first things reached their age of 180 days. `--without` leaves
the pruning out: the baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import history
import yaml

import perennial  # noqa: F401 - sets how OpenMP waits, before scikit-learn is imported

START_WEEKS = (26, 40)
KINDS = {
    "tables": "tables", "MLflow's artifacts": "artifacts", "MLflow's database": "mlflow.db", "reports": "reports",
    "work of trainings": "work",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=104)
    parser.add_argument("--trainings-every", type=int, default=4)
    parser.add_argument("--share", type=int, default=5, help="every so many flights")
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options)
    print(f"{'':28}" + "".join(f"{'week ' + week:>12}" for week in found) + f"{'ratio':>10}")
    *_, start, end = found.values()
    for name in end:
        ratio = end[name] / start[name] if start[name] else float("nan")
        print(f"{name:28}" + "".join(f"{look[name]:12,.1f}" for look in found.values()) + f"{ratio:10.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def measure(folder: Path, options: Any) -> dict[str, Any]:
    """The two years, week by week."""
    models = folder / "models"
    models.mkdir()
    _define(models, options.share)
    os.environ |= {"PERENNIAL_HOME": str(folder / "home"), "PERENNIAL_MODELS": str(models)}
    from perennial.workspace import open_workspace
    from tasks.rows.source import read_source

    workspace = open_workspace()
    definition = workspace.definition("flights")
    history.make_history(workspace, definition, history.FIRST_WEEKS)
    if not workspace.registry.history("flights"):
        raise SystemExit(f"--share {options.share} leaves too few rows for a first champion: name less")
    year = read_source(definition, history.START, history.START + timedelta(days=364))
    found: dict[str, dict[str, float]] = {}
    for week in range(history.FIRST_WEEKS + 1, options.weeks + 1):
        _live(workspace, definition, year, week, options)
        if week in (*START_WEEKS, options.weeks):
            found[str(week)] = _look(workspace, definition, week)
    return found


def _define(models: Path, share: int) -> None:
    """The flights' definition on every so many of its rows, with a window for its training and without a search."""
    from perennial.settings import PROJECT_ROOT
    from perennial.workspace import open_workspace
    from tasks.rows.source import read_source

    year = read_source(open_workspace().definition("flights"), history.START, history.START + timedelta(days=364))
    year.iloc[::share].to_parquet(models / "rows.parquet")
    raw = yaml.safe_load((PROJECT_ROOT / "deployments" / "flights.yaml").read_text())
    raw["data"]["source"] = {"parquet": "rows.parquet"}
    raw["training"] |= {"window": "91d", "tuning": {"trials": 0}}
    (models / "flights.yaml").write_text(yaml.safe_dump(raw))


def _live(workspace: Any, definition: Any, year: Any, week: int, options: Any) -> None:
    """One week: its rows, the check with its report, perhaps a training, and the pruning."""
    from perennial.state.tables import LAYOUT
    from tasks.steps.monitor import record_decision, run_check
    from tasks.steps.report import write_report
    from tasks.upkeep.prune import prune_model

    started, as_of = time.time(), history.START + week * history.WEEK
    history.append_week(workspace, definition, year, week - 1)
    for table in LAYOUT:
        workspace.store.compact("flights", table, least_files=history.LEAST_FILES)
    decision = run_check(workspace, definition, as_of=as_of)
    record_decision(workspace, decision)
    made = sorted((workspace.home / "reports" / "flights").glob("*"))
    if made:  # which takes most of a week's time: the later ones are copies under their own names
        for path in made[:2]:
            shutil.copyfile(path, path.with_name(f"{as_of:%Y%m%dT%H%M%S}-{decision.decision_id[:8]}{path.suffix}"))
    else:
        write_report(workspace, definition, decision)
    if week % options.trainings_every == 0:
        history.train(workspace, definition, as_of)
        _date_registry(workspace, as_of)
    _date(workspace.home, started, as_of)
    if not options.without:
        prune_model(workspace, definition, as_of=as_of, dry_run=False, quiet_hours=0)


def _date(home: Path, since: float, as_of: datetime) -> None:
    """Give the files that a week wrote the time of that week."""
    for kind in ("reports", "work"):
        for path in (home / kind).rglob("*"):
            if path.stat().st_mtime >= since - 1:
                os.utime(path, (as_of.timestamp(), as_of.timestamp()))


def _date_registry(workspace: Any, as_of: datetime) -> None:
    """Give the newest version and its run the time of their week, in MLflow's database."""
    import sqlite3
    from contextlib import closing

    version, at = workspace.registry.versions("flights")[-1], int(as_of.timestamp() * 1000)
    with closing(sqlite3.connect(workspace.home / "mlflow.db", timeout=30)) as database, database:
        numbered = (at, version.number)
        database.execute("UPDATE model_versions SET creation_time = ? WHERE version = ?", numbered)
        database.execute("UPDATE runs SET start_time = ? WHERE run_uuid = ?", (at, version.run_id))


def _look(workspace: Any, definition: Any, week: int) -> dict[str, float]:
    from perennial.commands.lifecycle.records import describe_status
    from tasks.steps.monitor import run_check

    as_of = history.START + week * history.WEEK
    disk = {f"{kind}, MB": _megabytes(workspace.home / place) for kind, place in KINDS.items()}
    batches = workspace.store.location("flights", "batches")
    times = {}
    for name, action in {
        "status": lambda: describe_status(workspace, "flights"),
        "check": lambda: run_check(workspace, definition, as_of=as_of + timedelta(seconds=1)),
    }.items():
        times[f"{name}, ms wall"], times[f"{name}, ms CPU"] = history.timed(action)
    return {
        "rows, thousands": workspace.store.count("flights", "batches") / 1000,
        "files of `batches`": float(len(list(Path(batches).glob("*.parquet")))),
        "versions": float(len(workspace.registry.versions("flights"))),
        "disk, MB": sum(disk.values()), **disk, **times,
    }  # fmt: skip


def _megabytes(place: Path) -> float:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6


if __name__ == "__main__":
    main()
