"""What a cluster of one and two workers brings, beside the local executor in the same run.

    python benchmarks/scale.py [--rows 100000] [--trials 8] [--score-rows 600000] [--check-rows 1000000] [--json FILE]

The model and the rows are the flights demo's, repeated where more are asked for. Printed are, for trials, batch scoring
and a check over parts: the rate of the local path, and with one and two Dask workers (processes of one thread on this
machine); and the bytes that all processes together wrote to each other, in all and per trial. The workers share this
machine's cores with the client and with whatever else runs: what is measured is the cost of going there, and not what
a second machine brings. Trials are the same in each: their values are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

import perennial  # noqa: F401 - sets how OpenMP waits, before scikit-learn is imported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="For trials")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--score-rows", type=int, default=600_000)
    parser.add_argument("--check-rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options)
    print(f"{found['cores']} cores, shared by client, scheduler and workers")
    for what, rates in found["rates"].items():
        local = rates["local"]
        told = ", ".join(f"{name} {value:,.0f} ({value / local:.2f} ×)" for name, value in rates.items())
        print(f"{what:28} {told}")
    moved = found["bytes"]
    print(
        f"one search: its data {moved['data'] / 1e6:.2f} MB; moved {moved['whole'] / 1e6:.2f} MB in all for "
        f"{found['trials']} trials with two workers; {moved['per_trial'] / 1e3:.1f} kB for each trial after the second"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def measure(folder: Path, options: Any) -> dict[str, Any]:
    """All of it."""
    from homes.served import make_home

    make_home(folder / "home", versions=1)
    definition, rates = _definition(), {}
    search = Search(definition, options.rows, options.trials)
    source = folder / "rows.parquet"
    _write(definition, source, options.score_rows)
    check = Check(folder / "tables", definition, options.check_rows)
    work = {
        "trials an hour": lambda model: search.rate(model),
        "rows scored a second": lambda model: _scoring_rate(model, source, options.score_rows),
        "rows checked a second": lambda model: check.rate(model),
    }
    for what, run in work.items():
        rates[what] = {"local": run(definition)}
    for workers in (1, 2):
        with _cluster(workers) as address:
            model = _at(definition, address)
            for what, run in work.items():
                rates[what][f"{workers} workers" if workers > 1 else "1 worker"] = run(model)
    search.require_equal()
    return {
        "cores": os.cpu_count(), "rows": options.rows, "trials": options.trials, "score_rows": options.score_rows,
        "check_rows": options.check_rows, "rates": rates, "bytes": _bytes(definition, options.rows, options.trials),
    }  # fmt: skip


class Search:
    """One tuning search, run here and there; its trials' values must agree."""

    def __init__(self, definition: Any, rows: int, trials: int) -> None:
        self.frame, self.folds = _labelled(definition, rows)
        self.trials, self.values = trials, []

    def rate(self, definition: Any) -> float:
        """Trials an hour, connecting and sending the data included."""
        from tasks.compute.cluster import tuning_executor
        from tasks.learning.search import tune

        tuning = definition.training.tuning.model_copy(update={"trials": self.trials, "seconds": None})
        training = definition.training.model_copy(update={"tuning": tuning})
        model = definition.model_copy(update={"training": training})
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            with tuning_executor(model) as executor:
                found = tune(
                    model, self.frame, self.folds, storage=Path(folder) / "j", study_name="s", executor=executor
                )  # fmt: skip
            seconds = time.perf_counter() - started
        self.values.append([(trial.parameters, trial.value) for trial in found.trials])
        return self.trials / seconds * 3600

    def require_equal(self) -> None:
        if any(values != self.values[0] for values in self.values):
            raise SystemExit("the trials differ between here and there")


class Check:
    """The facts of a large window, part by part."""

    def __init__(self, tables: Path, definition: Any, rows: int) -> None:
        from perennial.model.features import feature_frame
        from perennial.state.store import Store
        from perennial.state.tables import ROW_BATCH, ROW_INGESTED_AT, ROW_TIME
        from tasks.check.reference import build_reference
        from tasks.rows.normal_form import normalise

        frame = normalise(_repeated(definition, rows), definition).drop(columns=definition.data.target)
        self.as_of = frame[ROW_TIME].max().to_pydatetime() + timedelta(seconds=1)
        self.start = frame[ROW_TIME].min().to_pydatetime()
        self.store, self.rows = Store(str(tables)), rows
        stored = frame.assign(**{ROW_BATCH: "b", ROW_INGESTED_AT: frame[ROW_TIME]})
        for first in range(0, rows, 100_000):
            self.store.append("flights", "batches", stored.iloc[first : first + 100_000])
        self.reference = build_reference(
            feature_frame(frame.head(80_000), definition.features).assign(**{ROW_TIME: frame[ROW_TIME].head(80_000)}),
            time=ROW_TIME, task="classification", loss="log_loss", window_seconds=7 * 86400.0,
            numeric=definition.features.numeric, categorical=definition.features.categorical,
        )  # fmt: skip
        self.counts: list[int] = []

    def rate(self, definition: Any) -> float:
        """Rows a second."""
        from tasks.steps import monitor as monitoring

        monitoring.PART_ROWS = 100_000
        started = time.perf_counter()
        facts = monitoring.read_window(self.store, definition, self.reference, start=self.start, as_of=self.as_of)
        assert facts.rows == self.rows
        return self.rows / (time.perf_counter() - started)


def _scoring_rate(definition: Any, source: Path, rows: int) -> float:
    from perennial.workspace import open_workspace
    from tasks.steps.score import load_version, require_champion, score_file

    workspace = open_workspace()
    champion = require_champion(workspace.registry, "flights")
    pipeline = load_version(workspace.registry, champion, definition)
    target = source.with_name("scored.parquet")
    started = time.perf_counter()
    scored = sum(len(part) for part, _, _ in score_file(pipeline, definition, source, target, version=1))
    assert scored == rows
    return rows / (time.perf_counter() - started)


def _bytes(definition: Any, rows: int, trials: int) -> dict[str, float]:
    """What all processes wrote to each other for one search with two workers, and for each trial beyond the first."""
    from tasks.compute.cluster import open_cluster
    from tasks.learning.estimators import default_parameters
    from tasks.learning.trials import FoldEvaluator

    frame, folds = _labelled(definition, rows)
    evaluator = FoldEvaluator(definition, frame, folds, 0)
    quick = default_parameters(definition) | {"max_iter": 5}
    with _cluster(2) as address, open_cluster(_at(definition, address)) as cluster, cluster.trials(2) as run:
        processes = _count_writes(cluster.client)
        before = _written(cluster.client)
        _evaluate(run, evaluator, [quick] * 2)
        first = _written(cluster.client) - before
        _evaluate(run, evaluator, [quick] * (trials - 2))
        whole = _written(cluster.client) - before
        assert processes == 3
    return {"data": len(pickle.dumps(evaluator)), "whole": whole, "per_trial": (whole - first) / (trials - 2)}


def _evaluate(executor: Any, evaluator: Any, batch: list[Any]) -> None:
    for future in [executor.submit(evaluator, parameters) for parameters in batch]:
        assert future.result().error is None


def _count_writes(client: Any) -> int:
    """Let this process, with the scheduler in it, and the workers count what they write to sockets of Dask."""
    _patch()
    return 1 + len(client.run(_patch))


def _patch() -> None:
    from distributed.comm import tcp

    write = tcp.TCP.write

    async def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        count = await write(self, *arguments, **options)
        tcp.TCP.written += count if isinstance(count, int) else 0
        return count

    tcp.TCP.written, tcp.TCP.write = 0, counted


def _total() -> int:
    from distributed.comm import tcp

    return int(tcp.TCP.written)


def _written(client: Any) -> int:
    return _total() + sum(client.run(_total).values())


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[str]:
    from distributed import LocalCluster

    from tasks.compute.cluster import open_cluster

    nowhere = "127.0.0.1:0"
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=nowhere,
        worker_dashboard_address=nowhere,
    ) as local:  # fmt: skip
        with open_cluster(_at(_definition(), local.scheduler_address)) as cluster, cluster.share(0) as shared:
            list(shared.map(_import, range(4 * workers)))  # what a worker imports once is no cost of the work
        yield local.scheduler_address


def _import(_: int, __: int) -> None:

    time.sleep(0.5)


def _definition() -> Any:
    from perennial.workspace import open_workspace

    return open_workspace().definition("flights")


def _at(definition: Any, address: str) -> Any:
    from perennial.definition import Runner

    return definition.model_copy(update={"runner": Runner(dask=address)})


def _labelled(definition: Any, rows: int) -> tuple[pd.DataFrame, Any]:
    from tasks.rows.normal_form import normalise
    from tasks.rows.split import time_ordered_folds

    frame = normalise(_repeated(definition, rows), definition)
    frame = frame[frame[definition.data.target].notna()].sort_values("_time", ignore_index=True)
    frame = frame.rename(columns={"_time": definition.data.time})
    return frame, time_ordered_folds(frame[definition.data.time].dt.tz_convert(None).to_numpy(), 1, 0.2)


def _repeated(definition: Any, rows: int) -> pd.DataFrame:
    """So many flights: the year's again and again, later and under new ids."""
    from tasks.rows.source import read_source

    year, data, parts = read_source(definition, None, datetime(2014, 1, 1, tzinfo=UTC)), definition.data, []
    for turn in range(-(-rows // len(year))):
        later = year[data.time] + turn * timedelta(days=365)
        parts.append(year.assign(**{data.id: year[data.id].astype("str") + f"-{turn}", data.time: later}))
    return pd.concat(parts, ignore_index=True).head(rows)


def _write(definition: Any, target: Path, rows: int) -> None:
    _repeated(definition, rows).drop(columns=definition.data.target).to_parquet(target, row_group_size=100_000)


if __name__ == "__main__":
    main()
