"""Our search for hyperparameters beside FLAML, plain Optuna TPE and HalvingRandomSearch, on the same CPU seconds.

    python benchmarks/tuning.py [--seconds 20] [--tables bank,stops] [--stacks ours,flaml,optuna,halving,default]
        [--baseline optuna] [--seeds 3] [--half chosen-on|held-out] [--install] [--json FILE]

Each table is in order of time: the first four fifths are searched and learned from, the newest fifth is the holdout, of
which no search knows. Every stack reads the same encoded matrix, searches scikit-learn's HistGradientBoosting, fits
what it found on all that may be learned from, and is judged by its loss on the holdout (log loss; squared error for a
regression). `default` is our starting point without a search. `flaml_lightgbm` lets FLAML search LightGBM instead: not
the same estimator, for who wants to know what that would bring.

A process per stack and table, one thread each; a budget counts the CPU seconds that it used for the search (FLAML's
clock is turned into one), so that a busy machine costs nobody. The final fit comes after it.

FLAML wants other versions of our libraries, so it lives in an environment of its own, `flaml` in the benchmarks' cache
folder; `--install` makes it. Without it FLAML is left out, saying so.

Every search runs with each of `--seeds` seeds: with eight tables the rank of one seed is chance. Printed are each
stack's loss over the baseline's of the same run (the mean over the seeds, and its trials), its mean rank over tables
and seeds with the seeds' standard deviation, and in how many of all pairs ours lost less than it. JSON:
TABLE.STACK.SEED.{loss, cpu, trials, parameters}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prequential.sets import HOME, DriftingSet, load_set

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
# On the first half the search's own choices may be made; the second is what is reported.
HALVES = {"chosen-on": ("bike", "elec2", "employment", "pm25"), "held-out": ("bank", "births", "stops", "taxi")}
TABLES = tuple(sorted((*HALVES["chosen-on"], *HALVES["held-out"])))
STACKS = ("ours", "flaml", "optuna", "halving", "default")
HOLDOUT_SHARE = 0.2
VALIDATION_SHARE = 0.2
MOST_ROWS = 60_000
# Of each table and stack the outcome of every seed.
Results = dict[str, dict[str, list[dict[str, Any]]]]
FLAML = HOME / "flaml" / "bin" / "python"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1")


def make_table(name: str, folder: Path) -> None:
    """The table's rows for all stacks: an encoded matrix, its target, and the rows as our own search reads them."""
    found = load_set(DATA / name)
    if len(found.target) > MOST_ROWS:  # the newest: what a model of today learns from
        found = _newest(found, MOST_ROWS)
    frame = found.features.assign(_target=found.target, _time=found.time.to_numpy())
    frame.to_parquet(folder / "rows.parquet")
    end = len(frame) - int(HOLDOUT_SHARE * len(frame))
    from tasks.learning.estimators import build_pipeline

    definition = definition_of(found.task, found.numeric, found.categorical, seconds=1.0)
    preprocess = build_pipeline(definition, {}, 0)[:-1]
    learned = preprocess.fit_transform(frame.iloc[:end], frame["_target"].iloc[:end])
    matrix = np.concatenate([learned, preprocess.transform(frame.iloc[end:])])
    np.savez(folder / "matrix.npz", matrix=matrix, target=found.target, end=end)
    facts = {"task": found.task, "numeric": found.numeric, "categorical": found.categorical}
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _newest(found: DriftingSet, rows: int) -> DriftingSet:
    part = slice(len(found.target) - rows, None)
    return replace(
        found, features=found.features.iloc[part].reset_index(drop=True), target=found.target[part],
        window=found.window[part], time=found.time.iloc[part].reset_index(drop=True),
    )  # fmt: skip


def definition_of(task: str, numeric: Any, categorical: Any, *, seconds: float) -> Any:
    """The definition of a table, as our search takes it: its defaults but for the budget and one worker."""
    from perennial.definition import ModelDefinition

    return ModelDefinition.model_validate(
        {
            "name": "table", "task": task,
            "data": {"source": {"parquet": "rows.parquet"}, "id": "_row", "time": "_at", "target": "_target"},
            "features": {"numeric": list(numeric), "categorical": list(categorical)},
            "training": {"tuning": {"trials": 100_000, "seconds": seconds, "workers": 1}},
        }
    )  # fmt: skip


# One search: this file again, as a process of its own.


def search(stack: str, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """What one stack finds, and what that loses on the holdout."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    data = np.load(folder / "matrix.npz")
    end = int(data["end"])
    matrix, target = data["matrix"], data["target"]
    learn = (matrix[:end], target[:end])
    started = time.process_time()
    if stack.startswith("flaml"):
        found, trials, model = _by_flaml(stack, learn, facts, seconds, seed)
    else:
        by = {"ours": _by_ours, "optuna": _by_optuna, "halving": _by_halving, "default": _by_nothing}[stack]
        found, trials = by(learn, facts, seconds, seed, folder)
        model = None
    cpu = time.process_time() - started
    if model is None:
        model = estimator_of(facts, seed, found).fit(*learn)
    made = model.predict_proba(matrix[end:]) if facts["task"] == "classification" else model.predict(matrix[end:])
    told = {name: value.item() if hasattr(value, "item") else value for name, value in found.items()}
    return {"loss": loss_of(target[end:], made, facts), "cpu": cpu, "trials": trials, "parameters": told}


def loss_of(truth: Any, made: Any, facts: dict[str, Any]) -> float:
    """Log loss, or squared error."""
    if facts["task"] == "regression":
        return float(np.mean((truth - made) ** 2))
    shown = np.clip(made, 1e-9, 1)
    shown = shown / shown.sum(axis=1, keepdims=True)
    return float(-np.log(shown[np.arange(len(truth)), truth.astype(int)]).mean())


def estimator_of(facts: dict[str, Any], seed: int, parameters: dict[str, Any]) -> Any:
    """The one estimator that all search, over the encoded matrix."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if facts["task"] == "regression" else HistGradientBoostingClassifier
    first = len(facts["numeric"])
    categorical = list(range(first, first + len(facts["categorical"]))) or None
    fixed = {"categorical_features": categorical, "early_stopping": False, "random_state": seed}
    return kind(**fixed | parameters)


def newest_fold(rows: int) -> tuple[Any, Any]:
    """Positions to learn from, and the newest to be judged on: what a person without our splits would do."""
    edge = rows - int(VALIDATION_SHARE * rows)
    return np.arange(edge), np.arange(edge, rows)


def _by_ours(learn: Any, facts: dict[str, Any], seconds: float, seed: int, folder: Path) -> tuple[Any, int]:
    from tasks.learning.search import tune
    from tasks.rows.split import Fold, time_ordered_folds

    rows = pd.read_parquet(folder / "rows.parquet").iloc[: len(learn[1])]
    definition = definition_of(facts["task"], facts["numeric"], facts["categorical"], seconds=seconds)
    tuning = definition.training.tuning
    times = rows["_time"].to_numpy().astype("datetime64[us]")
    cut = time_ordered_folds(times, tuning.folds, tuning.validation_share)
    folds = [Fold(fold.train, fold.validation) for fold in cut]
    found = tune(
        definition, rows, folds, storage=folder / f"ours-{seed}.journal", study_name="table", seed=seed,
        clock=time.process_time,
    )  # fmt: skip
    return found.parameters, len(found.trials)


def _by_optuna(learn: Any, facts: dict[str, Any], seconds: float, seed: int, folder: Path) -> tuple[Any, int]:  # noqa: ARG001
    """TPE with its own defaults, over our space, without our starting point."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, (train, validation) = _space(), newest_fold(len(learn[1]))
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    end = time.process_time() + seconds
    while not study.trials or time.process_time() < end:
        trial = study.ask()
        parameters = {name: item.suggest(trial, name) for name, item in space.items()}
        study.tell(trial, _tried(learn, facts, seed, parameters, train, validation))
    return study.best_params, len(study.trials)


def _by_halving(learn: Any, facts: dict[str, Any], seconds: float, seed: int, folder: Path) -> tuple[Any, int]:  # noqa: ARG001
    """Successive halving over rows; again with twice as many candidates as long as there is time."""
    from scipy.stats import loguniform, randint, uniform
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV

    drawn = {}
    for name, item in _space().items():
        span = item.high - item.low
        drawn[name] = loguniform(item.low, item.high) if item.log and not item.whole else (
            _LogWhole(item.low, item.high) if item.log else randint(int(item.low), int(item.high) + 1) if item.whole
            else uniform(item.low, span)
        )  # fmt: skip
    scoring = "neg_mean_squared_error" if facts["task"] == "regression" else "neg_log_loss"
    end, candidates, tried, best = time.process_time() + seconds, 4, 0, (-np.inf, {})
    while not tried or time.process_time() < end:
        began = time.process_time()
        least = min(1000, len(learn[1]) // 4)
        halving = HalvingRandomSearchCV(
            estimator_of(facts, seed, {}), drawn, n_candidates=candidates, factor=3, min_resources=least,
            scoring=scoring, cv=_NewestFold(), random_state=seed + tried, refit=False,
        )  # fmt: skip
        halving.fit(*learn)
        tried += len(halving.cv_results_["params"])
        best = max(best, (float(halving.best_score_), halving.best_params_), key=lambda pair: pair[0])
        candidates *= 2
        if time.process_time() + 2 * (time.process_time() - began) > end:
            break
    return best[1], tried


class _LogWhole:
    """Whole numbers, evenly over their logarithm."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = np.log(low), np.log(high)

    def rvs(self, random_state: Any = None) -> int:
        return round(float(np.exp(np.random.default_rng(random_state.randint(2**31)).uniform(self.low, self.high))))


class _NewestFold:
    """The newest rows of whatever number of rows there are."""

    def split(self, matrix: Any, target: Any = None, groups: Any = None) -> Any:  # noqa: ARG002
        yield newest_fold(len(matrix))

    def get_n_splits(self, matrix: Any = None, target: Any = None, groups: Any = None) -> int:  # noqa: ARG002
        return 1


def _by_nothing(learn: Any, facts: dict[str, Any], seconds: float, seed: int, folder: Path) -> tuple[Any, int]:  # noqa: ARG001
    return {name: item.default for name, item in _space().items()}, 0


def _by_flaml(stack: str, learn: Any, facts: dict[str, Any], seconds: float, seed: int) -> tuple[Any, int, Any]:
    """FLAML with its own splits by time and its own final fit; it asks `time.time` how much of the budget is gone."""
    began = time.time()
    time.time = lambda: began + time.process_time()
    from flaml import AutoML  # type: ignore[import-not-found]  # in an environment of its own

    frame = pd.DataFrame(learn[0], columns=[f"x{place}" for place in range(learn[0].shape[1])])
    learner = "lgbm" if stack == "flaml_lightgbm" else "histgb"
    automl = AutoML()
    automl.fit(
        frame, learn[1], task=facts["task"], metric="mse" if facts["task"] == "regression" else "log_loss",
        estimator_list=[learner], time_budget=seconds, eval_method="holdout", split_type="time",
        split_ratio=VALIDATION_SHARE, n_jobs=1, seed=seed, verbose=0, retrain_full=True,
    )  # fmt: skip
    return dict(automl.best_config or {}), len(automl.config_history), _Named(automl)


class _Named:
    """FLAML's model, which reads columns by name."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def _frame(self, matrix: Any) -> pd.DataFrame:
        return pd.DataFrame(matrix, columns=[f"x{place}" for place in range(matrix.shape[1])])

    def predict(self, matrix: Any) -> Any:
        return self.model.predict(self._frame(matrix))

    def predict_proba(self, matrix: Any) -> Any:
        return self.model.predict_proba(self._frame(matrix))


def _space() -> Any:
    from tasks.learning.estimators import SEARCH_SPACES

    return SEARCH_SPACES["hist_gradient_boosting"]


def _tried(learn: Any, facts: dict[str, Any], seed: int, parameters: Any, train: Any, validation: Any) -> float:
    matrix, target = learn
    model = estimator_of(facts, seed, parameters).fit(matrix[train], target[train])
    rows = matrix[validation]
    made = model.predict(rows) if facts["task"] == "regression" else model.predict_proba(rows)
    return loss_of(target[validation], made, facts)


# The comparison.


def run(stack: str, folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """One search in a process of its own; what went wrong ends the program."""
    python = str(FLAML) if stack.startswith("flaml") else sys.executable
    asked = ["--one", stack, "--folder", str(folder), "--seconds", str(seconds), "--seed", str(seed)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(
        [python, str(Path(__file__).resolve()), *asked], env=os.environ | ONE_THREAD | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{stack}: {done.stderr[-800:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def runs(stack: str, folder: Path, seconds: float, seeds: int) -> list[dict[str, Any]]:
    """The search once with each seed; what searches nothing has none."""
    if stack == "default":
        return [run(stack, folder, seconds, 0)] * seeds
    return [run(stack, folder, seconds, seed) for seed in range(seeds)]


def install() -> None:
    """The environment of FLAML."""
    subprocess.run([sys.executable, "-m", "venv", str(FLAML.parent.parent)], check=True)
    subprocess.run([str(FLAML), "-m", "pip", "install", "-q", "flaml[automl]", "pyarrow"], check=True)


def without_flaml(stacks: list[str]) -> list[str]:
    """The stacks that can run; what is left out is said."""
    if not any(stack.startswith("flaml") for stack in stacks):
        return stacks
    found = FLAML.exists() and not subprocess.run(
        [str(FLAML), "-c", "import flaml.automl, scipy, pyarrow"], capture_output=True, check=False
    ).returncode  # fmt: skip
    if found:
        return stacks
    print(f"flaml    skipped: no environment at {FLAML.parent.parent}; make it with --install", flush=True)
    return [stack for stack in stacks if not stack.startswith("flaml")]


def losses_of(results: Results, seed: int) -> pd.DataFrame:
    """One seed's losses: a row for each stack, a column for each table."""
    return pd.DataFrame(
        {name: {stack: found[stack][seed]["loss"] for stack in found} for name, found in results.items()}
    )


def mean_ranks(results: Results, seeds: int) -> pd.DataFrame:
    """Each stack's rank by loss, 1 the least, equal ones sharing theirs: its mean over the tables, for each seed."""
    ranked = {seed: losses_of(results, seed).rank(axis=0, method="average").mean(axis=1) for seed in range(seeds)}
    return pd.DataFrame(ranked)


def shares_beaten(results: Results, seeds: int) -> pd.Series[Any]:
    """On which share of tables and seeds ours lost less than each stack, equal losses counting half."""
    losses = pd.concat([losses_of(results, seed) for seed in range(seeds)], axis=1)
    return ((losses > losses.loc["ours"]) + 0.5 * (losses == losses.loc["ours"])).mean(axis=1)


def main() -> None:
    """Run every stack on every table, print ratios and mean ranks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds of each search.")
    parser.add_argument("--tables", default="", help=f"Of {', '.join(TABLES)}; default: all.")
    parser.add_argument("--half", choices=sorted(HALVES), help="Only the tables of one half.")
    parser.add_argument("--stacks", default=",".join(STACKS), help="Also flaml_lightgbm.")
    parser.add_argument("--baseline", default="optuna")
    parser.add_argument("--seeds", type=int, default=3, help="How often each search is run.")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--install", action="store_true", help="Make FLAML's environment first.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(search(options.one, options.folder, options.seconds, options.seed)))
        return
    if options.install:
        install()
    names = options.tables.split(",") if options.tables else list(HALVES.get(options.half, TABLES))
    if unknown := sorted(set(names) - set(TABLES)):
        raise SystemExit(f"no such table: {', '.join(unknown)}; there are {', '.join(TABLES)}")
    stacks = without_flaml(options.stacks.split(","))
    if options.baseline not in stacks:
        raise SystemExit(f"the baseline {options.baseline} is none of the stacks: {', '.join(stacks)}")
    print(f"{options.seconds:g} CPU seconds each; loss on the newest fifth, over {options.baseline}'s", flush=True)
    print(f"{'table':12}" + "".join(f"{stack:>16}" for stack in stacks), flush=True)
    results: Results = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="perennial-tuning-") as place:
            make_table(name, Path(place))
            results[name] = {stack: runs(stack, Path(place), options.seconds, options.seeds) for stack in stacks}
        base = results[name][options.baseline]
        cells = [
            f"{np.mean([one['loss'] / other['loss'] for one, other in zip(found, base, strict=True)]):.3f} "
            f"({np.mean([one['trials'] for one in found]):.0f})"
            for found in results[name].values()
        ]
        print(f"{name:12}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
    ranks = mean_ranks(results, options.seeds)
    told = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in zip(ranks.mean(axis=1), ranks.std(axis=1), strict=True)]
    print(f"{'mean rank':12}" + "".join(f"{cell:>16}" for cell in told))
    if "ours" in stacks:
        beaten = shares_beaten(results, options.seeds)
        print(f"{'ours beats':12}" + "".join(f"{'' if s == 'ours' else f'{beaten[s]:.0%}':>16}" for s in stacks))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
