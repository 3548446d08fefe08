"""Tests of the search: its budget, its determinism, its resumption after a kill, and what it fits how often."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info

from perennial.definition import ModelDefinition
from perennial.errors import DataError, DefinitionError
from tasks.learning.estimators import FIRST_POINTS, SEARCH_SPACES, Range, default_parameters, points_from_elsewhere
from tasks.learning.search import TrialRecord, TuningResult, tune
from tasks.learning.trials import Evaluate, Evaluation, FoldEvaluator
from tasks.rows.split import Fold, time_ordered_folds

ROOT = Path(__file__).resolve().parents[3]


def definition(folder: Path | None = None, task: str = "classification", **training: Any) -> ModelDefinition:
    tuning = {"trials": 6, "seconds": None, "folds": 2, "validation_share": 0.3, **training.pop("tuning", {})}
    model = ModelDefinition.model_validate(
        {
            "name": "m",
            "task": task,
            "data": {"source": {"parquet": "x"}, "id": "id", "time": "time", "target": "y"},
            "features": {"numeric": ["x", "z"], "categorical": ["c"]},
            "training": {"parameters": {"max_iter": 5}, **training, "tuning": tuning},
        }
    )
    return model.model_copy(update={"path": folder / "m.yaml"}) if folder else model


def rows(count: int = 300) -> tuple[pd.DataFrame, tuple[Fold, ...]]:
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=count), rng.choice(["k", "l"], size=count)
    times = pd.date_range("2024-01-01", periods=count, freq="h", unit="us")
    y = (x + (c == "k") + rng.normal(size=count) > 0.5).astype(float)
    frame = pd.DataFrame({"time": times.tz_localize("UTC"), "x": x, "z": rng.normal(size=count), "c": c, "y": y})
    return frame, time_ordered_folds(times.to_numpy(), 2, 0.3)


def points(result: TuningResult) -> list[tuple[int, dict[str, Any], float | None]]:
    return [(trial.number, trial.parameters, trial.value) for trial in result.trials]


def search(model: ModelDefinition, journal: Path, **arguments: Any) -> TuningResult:
    frame, folds = rows()
    return tune(model, frame, folds, storage=journal, study_name="s", **arguments)


class Inline:
    """Evaluates at once in this thread, or in the given pool; may pause before the trial of a number."""

    def __init__(self, pool: ThreadPoolExecutor | None = None, pause: Callable[[int], float] = lambda number: 0.0):
        self.pool, self.pause, self.count = pool, pause, 0

    def submit(self, evaluate: Evaluate, parameters: dict[str, Any]) -> Future[Evaluation]:
        number, self.count = self.count, self.count + 1

        def run() -> Evaluation:
            time.sleep(self.pause(number))
            return evaluate(parameters)

        if self.pool:
            return self.pool.submit(run)
        future: Future[Evaluation] = Future()
        future.set_result(run())
        return future


def test_a_search_within_its_trials(tmp_path: Path) -> None:
    seen: list[tuple[int, float | None]] = []

    def progress(trial: TrialRecord, best: TrialRecord | None) -> None:
        seen.append((trial.number, best.value if best else None))

    result = search(definition(), tmp_path / "new" / "journal", progress=progress)
    values = [trial.value for trial in result.trials]
    assert [trial.number for trial in result.trials] == list(range(6))
    assert (result.value, result.metric, result.greater_is_better) == (min(values), "log_loss", False)
    assert result.parameters == result.trials[values.index(min(values))].parameters
    assert result.parameters["max_iter"] == 5
    assert (result.stopped_by, result.resumed_trials) == ("trials", 0)
    assert seen == [(number, min(values[: number + 1])) for number in range(6)]
    assert len({str(trial.parameters) for trial in result.trials}) == 6
    assert all(trial.seconds > 0 for trial in result.trials)


def test_a_greater_metric_is_better_where_it_is(tmp_path: Path) -> None:
    result = search(definition(tuning={"metric": "roc_auc"}), tmp_path / "j")
    assert result.greater_is_better
    assert result.value == max(trial.value or 0 for trial in result.trials)


def test_the_champion_comes_first_then_the_defaults(tmp_path: Path) -> None:
    champion = {"learning_rate": 0.07, "max_leaf_nodes": 10_000, "max_iter": 77, "gone": 1}
    first, second = search(definition(), tmp_path / "j", champion_parameters=champion).trials[:2]
    assert first.parameters["learning_rate"] == 0.07
    assert first.parameters["max_leaf_nodes"] == 127, "moved into the search space"
    assert first.parameters["max_iter"] == 5, "fixed by the definition"
    assert "gone" not in first.parameters
    assert second.parameters == {**default_parameters(definition()), "max_iter": 5}


def test_points_that_did_well_elsewhere_follow_and_leave_half_of_the_trials(tmp_path: Path) -> None:
    few = definition(parameters={}, tuning={"trials": 7})
    known = points_from_elsewhere(few)
    assert len(known) == 3
    tried = [trial.parameters for trial in search(few, tmp_path / "few").trials]
    assert tried[:3] == [default_parameters(few), *known[:2]]
    assert not any(parameters in known for parameters in tried[3:])
    later = search(few, tmp_path / "later", champion_parameters={"max_leaf_nodes": 9})
    after = [trial.parameters for trial in later.trials]
    assert (after[1], after[2]) == (default_parameters(few), known[0])
    assert after[3] not in known, "the champion's and the defaults are of that half"


def test_points_are_not_taken_apart(tmp_path: Path) -> None:
    assert points_from_elsewhere(definition(parameters={"max_iter": 5})) == []
    assert points_from_elsewhere(definition(parameters={}, estimator="linear")) == []


def test_every_first_point_lies_in_the_search_space() -> None:
    for estimator, points_ in FIRST_POINTS.items():
        space = SEARCH_SPACES[estimator]
        for point in points_:
            assert set(point) == set(space)
            for name, value in point.items():
                allowed = space[name]
                assert isinstance(allowed, Range)
                assert allowed.low <= value <= allowed.high, (estimator, name)


def test_same_seed_same_search_whatever_the_timing(tmp_path: Path) -> None:
    model = definition(tuning={"trials": 16})
    plain = search(model, tmp_path / "a", seed=3)
    assert points(search(model, tmp_path / "b", seed=3, executor=Inline())) == points(plain)
    with ThreadPoolExecutor(2) as pool:
        uneven = Inline(pool, pause=lambda number: 0.2 * (number % 3 == 0))
        assert points(search(model, tmp_path / "c", seed=3, executor=uneven)) == points(plain)
    assert points(search(model, tmp_path / "d", seed=4)) != points(plain)


def test_a_slow_trial_holds_up_no_other(tmp_path: Path) -> None:
    others = threading.Event()
    ended: list[int] = []

    def evaluate(number: int) -> None:
        if number == 0:
            assert others.wait(30), "trials 1 to 7 end while the first one is still being evaluated"
        ended.append(number)
        if len(ended) == 7:
            others.set()

    with ThreadPoolExecutor(2) as pool:
        executor = Inline(pool, pause=lambda number: evaluate(number) or 0.0)
        result = search(definition(tuning={"trials": 12}), tmp_path / "j", executor=executor)
    assert ended[7] == 0
    assert [trial.number for trial in result.trials] == list(range(12))


def test_no_trials_evaluate_the_given_parameters_once(tmp_path: Path) -> None:
    model = definition(tuning={"trials": 0})
    result = search(model, tmp_path / "j", champion_parameters={"learning_rate": 0.05})
    assert result.parameters["learning_rate"] == 0.05
    assert result.parameters["max_iter"] == 5
    assert (len(result.trials), result.stopped_by) == (1, "nothing to search")
    assert search(model, tmp_path / "k").parameters == {**default_parameters(model), "max_iter": 5}
    again = search(model, tmp_path / "j", champion_parameters={"learning_rate": 0.05})
    assert (again.resumed_trials, again.value) == (1, result.value)


def test_the_budget_of_seconds_counts_interrupted_runs_and_lets_the_first_ones_run(tmp_path: Path) -> None:
    now = [0.0]

    class FiveSeconds(Inline):
        def submit(self, evaluate: Evaluate, parameters: dict[str, Any]) -> Future[Evaluation]:
            now[0] += 5
            return super().submit(evaluate, parameters)

    def run(seconds: float, trials: int = 20) -> TuningResult:
        model = definition(tuning={"seconds": seconds, "trials": trials})
        return search(model, tmp_path / "j", executor=FiveSeconds(), clock=lambda: now[0])

    assert len(run(5, 2).trials) == 2
    result = run(35)
    assert (len(result.trials), result.resumed_trials, result.stopped_by) == (6, 2, "seconds")
    spent = run(35)
    assert (len(spent.trials), spent.resumed_trials, spent.seconds) == (6, 6, 0)
    larger = run(1000, 8)
    assert (len(larger.trials), larger.resumed_trials, larger.stopped_by) == (8, 6, "trials")


def test_another_definition_seed_or_data_is_another_study(tmp_path: Path) -> None:
    frame, folds = rows()
    journal = tmp_path / "j"

    def resumed(model: ModelDefinition, data: pd.DataFrame = frame, seed: int = 0, own: Any = folds) -> int:
        return tune(model, data, own, storage=journal, study_name="s", seed=seed).resumed_trials

    model = definition(tuning={"trials": 2})
    assert resumed(model) == 0
    assert resumed(model) == 2
    assert resumed(model, seed=1) == 0
    assert resumed(model, own=folds[:1]) == 0
    assert resumed(model, data=frame.assign(x=frame["x"] + 1)) == 0
    assert resumed(definition(tuning={"trials": 2}, parameters={"max_iter": 6})) == 0
    assert resumed(model) == 2


KILLED = """
import sys
sys.path.insert(0, {root!r})
sys.path.insert(0, {here!r})
from pathlib import Path
from test_tuning import Inline, definition, search

def progress(trial, best):
    print(trial.number, flush=True)

slow = Inline(pause=lambda number: 0.15)
search(definition(tuning={{"trials": 12}}), Path(sys.argv[1]), seed=3, progress=progress, executor=slow)
"""


@pytest.mark.process
@pytest.mark.parametrize("after", [1, 8])
def test_killed_and_started_again_it_ends_as_if_nothing_had_happened(tmp_path: Path, after: int) -> None:
    journal = tmp_path / "j"
    code = KILLED.format(root=str(ROOT), here=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code, str(journal)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == after:
                break
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "torn')  # as a kill within the write leaves it
    model = definition(tuning={"trials": 12})
    started = time.monotonic()
    resumed = search(model, journal, seed=3)
    assert time.monotonic() - started < 20, "no lock of the dead process is waited for"
    assert after + 1 <= resumed.resumed_trials < 12
    assert points(resumed) == points(search(model, tmp_path / "fresh", seed=3))


COUNTING = """
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

FITTED = []

class Counted(TransformerMixin, BaseEstimator):
    def __init__(self, scale=1.0):
        self.scale = scale
    def fit(self, frame, target=None):
        FITTED.append((self.scale, len(frame)))
        return self
    def transform(self, frame):
        return frame[["x", "z"]].to_numpy() * self.scale

def build(definition, parameters, seed):
    model = LogisticRegression(C=parameters.get("C", 1.0))
    return Pipeline([("scale", Counted(parameters.get("scale", 1.0))), ("model", model)])

def search_space(trial):
    if SCALED:
        trial.suggest_categorical("scale", [1.0, 2.0])
    trial.suggest_float("C", 1e-3, 10, log=True)
    return trial.params
"""


def counting(folder: Path, scaled: bool, **tuning: Any) -> ModelDefinition:
    (folder / "own.py").write_text(f"SCALED = {scaled}\n{COUNTING}")
    return definition(folder, estimator="own.py:build", parameters={}, tuning=tuning)


@pytest.mark.parametrize(("scaled", "variants"), [(False, {1.0}), (True, {1.0, 2.0})])
def test_preprocessing_is_fitted_once_per_fold_and_variant(tmp_path: Path, scaled: bool, variants: set[float]) -> None:
    from perennial.model.plugins import load_module

    result = search(counting(tmp_path, scaled, trials=12), tmp_path / "j")
    assert all(trial.state == "complete" for trial in result.trials)
    fitted = load_module(tmp_path / "own.py").FITTED
    folds = rows()[1]
    assert sorted(fitted) == sorted((scale, len(fold.train)) for scale in variants for fold in folds)
    assert len({trial.parameters["C"] for trial in result.trials}) == 12


def test_built_in_preprocessing_is_fitted_once_per_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.compose import ColumnTransformer

    fits: list[int] = []
    original = ColumnTransformer.fit_transform

    def counted(self: Any, X: Any, y: Any = None, **parameters: Any) -> Any:
        if isinstance(X, pd.DataFrame):  # the boosting has a ColumnTransformer of its own, on arrays
            fits.append(len(X))
        return original(self, X, y, **parameters)

    monkeypatch.setattr(ColumnTransformer, "fit_transform", counted)
    search(definition(), tmp_path / "j")
    assert sorted(fits) == sorted(len(fold.train) for fold in rows()[1])


FAILING = """
from sklearn.dummy import DummyClassifier

class Moody(DummyClassifier):
    def __init__(self, depth=1):
        super().__init__()
        self.depth = depth
    def fit(self, X, y):
        if self.depth {rule}:
            raise RuntimeError(f"no mood for depth {{self.depth}}")
        return super().fit(X, y)

def build(definition, parameters, seed):
    return Moody(parameters.get("depth", 1))

def search_space(trial):
    return {{"depth": trial.suggest_int("depth", 1, 10)}}
"""


def test_failing_trials_are_recorded_and_end_nothing(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FAILING.format(rule="> 3"))
    model = definition(tmp_path, estimator="own.py:build", parameters={}, tuning={"trials": 12})
    result = search(model, tmp_path / "j")
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert failed
    assert len(failed) < 12
    assert all("no mood for depth" in (trial.error or "") and trial.parameters["depth"] > 3 for trial in failed)
    assert result.parameters["depth"] <= 3
    assert points(search(model, tmp_path / "j")) == points(result)
    assert search(model, tmp_path / "j").resumed_trials == 12


def test_when_all_fail_the_first_reason_is_given(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FAILING.format(rule="> 0"))
    model = definition(tmp_path, estimator="own.py:build", parameters={})
    with pytest.raises(DataError, match=r"all 6 tuning trials of m failed.*no mood for depth"):
        search(model, tmp_path / "j")


def test_an_undefined_metric_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    frame, folds = rows()
    frame["y"] = np.where(frame.index < 200, frame["y"], 1.0)
    model = definition(tuning={"metric": "roc_auc"})
    with pytest.raises(DataError, match="roc_auc is nan on a validation block"):
        tune(model, frame, folds, storage=tmp_path / "j", study_name="s")


def test_wrong_definitions_and_missing_folds_are_no_trials(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="has no nonsense"):
        search(definition(parameters={"nonsense": 1}), tmp_path / "j")
    with pytest.raises(DataError, match="no validation fold"):
        tune(definition(), rows()[0], [], storage=tmp_path / "j", study_name="s")


def test_rows_outside_the_folds_need_no_label(tmp_path: Path) -> None:
    frame, folds = rows()
    late = pd.concat([frame, frame.assign(y=np.nan, x=np.inf)], ignore_index=True)
    model = definition(tuning={"trials": 2})
    plain = tune(model, frame, folds, storage=tmp_path / "a", study_name="s")
    assert points(tune(model, late, folds, storage=tmp_path / "b", study_name="s")) == points(plain)


def test_trials_run_at_once_each_with_its_share_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=30)
    limits: list[set[int]] = []

    def evaluated(self: FoldEvaluator, parameters: dict[str, Any]) -> Evaluation:
        both.wait()  # passes only when two trials are here at once
        limits.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp"})
        return Evaluation(parameters["learning_rate"], 0.1)

    monkeypatch.setattr(FoldEvaluator, "__call__", evaluated)
    monkeypatch.setattr("tasks.learning.trials.joblib.cpu_count", lambda: 6)
    before = [(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()]
    assert len(search(definition(tuning={"workers": 2}), tmp_path / "j").trials) == 6
    assert limits == [{3}] * 6
    assert [(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()] == before


def test_the_evaluator_travels(tmp_path: Path) -> None:
    frame, folds = rows()
    evaluator = FoldEvaluator(definition(), frame, folds, seed=0)
    value = evaluator({"learning_rate": 0.2}).value
    assert value is not None
    assert pickle.loads(pickle.dumps(evaluator))({"learning_rate": 0.2}).value == value


def test_regression(tmp_path: Path) -> None:
    frame, folds = rows()
    frame["y"] = frame["x"] * 2
    model = definition(task="regression")
    result = tune(model, frame, folds, storage=tmp_path / "j", study_name="s")
    assert result.metric == "rmse"
    assert 0 < result.value < frame["y"].std()


def test_a_custom_estimator_without_a_search_space_is_evaluated_once(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from sklearn.dummy import DummyClassifier\ndef build(d, p, s):\n    return DummyClassifier()\n"
    )
    result = search(definition(tmp_path, estimator="own.py:build", parameters={}), tmp_path / "j")
    assert (len(result.trials), result.stopped_by) == (1, "nothing to search")
