"""How far estimates of the loss without labels are off, beside two guesses that cost nothing, on real drifting sets.

    python benchmarks/estimates.py --data FOLDER --cache CACHE --json FILE [--label-delays 1 4 8]

Each set is replayed by the live check, window by window, once with the first champion left alone (`frozen`) and once
under the default policy (`perennial`). Each check's estimate of the window that has just ended is put beside the loss
that its labels show later, and so are "no change since promotion" and "as in the last realised windows", which the
same check wrote down. `off` is the mean absolute error; `edge` is by how much a guess is off more than the estimate,
in standard errors over windows. `when trusted` repeats that on the windows for which the check itself said beforehand
that its estimate may be trusted: whether that rule is any good. With `--kept`, the policy whose estimate may ask for a
retraining is run beside the one whose may not: kept gain as in benchmarks/decisions.py.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from prequential.replay import Replay
from prequential.runs import Run, run_chooser, run_perennial
from prequential.scores import score_matrix
from prequential.sets import Floats, find_sets, load_set
from sklearn.metrics import roc_auc_score

from perennial.definition import Triggers
from tasks.calibration.fit import Recalibrator
from tasks.check.decision import Decision
from tasks.measures.quality import row_losses

GUESSES = ("estimate", "promotion", "recent")
RUNS = ("frozen", "perennial")
NOTHING = Triggers(quality=False, drift=False, growth=False, schedule=False)


def replay_run(replay: Replay, name: str) -> Run:
    """The live check over the whole set."""
    if name == "frozen":
        return run_perennial(replay, replay.policy(triggers=NOTHING, recalibrate=False))
    return run_perennial(replay, replay.policy())


def realised(replay: Replay, number: int, decision: Decision) -> tuple[float, float | None]:
    """The window's loss as its labels show it, and for a class its AUC: of what the champion of the check answered."""
    window = replay.data.start + number
    told = decision.evidence["estimate"]
    truth = replay.data.target[replay.rows(window, window)]
    score = replay.raw(int(decision.champion_version), window, window)
    if told["map"]:
        score = Recalibrator.from_dict(told["map"]).apply(score)
    auc = None
    if replay.task == "classification" and 0 < truth.mean() < 1:
        auc = float(roc_auc_score(truth, score))
    return float(row_losses(truth, score, replay.loss).mean()), auc


def measure_run(replay: Replay, run: Run) -> dict[str, Any]:
    """Every guess's error over the checks that have all three, and over those whose estimate was trusted."""
    rows, trusted, aucs = [], [], []
    for number, decision in enumerate(run.decisions):
        told = decision.evidence["estimate"]
        if not told:
            continue
        loss, auc = realised(replay, number, decision)
        if told["auc"] is not None and auc is not None:
            aucs.append(abs(told["auc"] - auc))
        if told["promotion"] is None or told["recent"] is None:
            continue
        guesses = [told["value"], told["promotion"], told["recent"]]
        rows.append([abs(guess - loss) for guess in guesses])
        trusted.append(told["trusted"])
    off, chosen = np.array(rows).reshape(-1, 3), np.array(trusted, dtype=bool)
    fired = [s.fired for d in run.decisions for s in d.signals if s.kind == "estimate"]
    return {
        "checks": len(run.decisions),
        "fired": sum(fired),
        "all": compare(off),
        "trusted": compare(off[chosen]),
        "auc_off": float(np.mean(aucs)) if aucs else None,
    }


def compare(off: Floats) -> dict[str, Any]:
    """Mean absolute errors, and the estimate's edge over each guess."""
    if not len(off):
        return {"windows": 0}
    found: dict[str, Any] = {"windows": len(off), "off": dict(zip(GUESSES, off.mean(axis=0).tolist(), strict=True))}
    for column, name in ((1, "promotion"), (2, "recent")):
        saved = off[:, column] - off[:, 0]
        error = float(saved.std(ddof=1) / np.sqrt(len(saved))) if len(saved) > 1 else 0.0
        found[f"edge_{name}"] = float(saved.mean() / error) if error > 0 else 0.0
        found[f"better_{name}"] = float((saved > 0).mean())
    return found


def measure_kept(replay: Replay) -> dict[str, Any]:
    """What the default policy keeps of retraining's gain with the estimate switched off and on."""
    never, always = (run_chooser(replay, lambda *_, ask=ask: ask) for ask in (False, True))
    found = {}
    for name, policy in (
        ("without", replay.policy(triggers=Triggers(estimate=False))),
        ("with", replay.policy(triggers=Triggers(estimate=True))),
    ):
        run = run_perennial(replay, policy)
        found[name] = {
            "kept": (never.loss - run.loss) / (never.loss - always.loss),
            "retrains": run.retrains,
            "retrain_share": run.retrains / max(1, always.retrains),
        }
    return found


def main(given: list[str] | None = None) -> None:
    arguments = _arguments(given)
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {}
    data = [load_set(path) for path in find_sets([arguments.data] if arguments.data else [], arguments.sets).values()]
    for delay in arguments.label_delays:
        result[str(delay)] = figures = {}
        print(f"labels {delay} windows late")
        for one in data:
            replay = Replay(one, score_matrix(one, arguments.cache), delay)
            figures[one.name] = {name: measure_run(replay, replay_run(replay, name)) for name in RUNS}
            if arguments.kept:
                figures[one.name]["kept"] = measure_kept(replay)
            _print(one.name, figures[one.name])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


def _print(name: str, figures: dict[str, Any]) -> None:
    for run in RUNS:
        row = figures[run]
        print(f"  {name:<12}{run:<10} all {_errors(row['all'])}   when trusted {_errors(row['trusted'])}", end="")
        print(
            f"   fired {row['fired']}/{row['checks']}" + (f"   AUC off {row['auc_off']:.3f}" if row["auc_off"] else "")
        )
    for policy, row in figures.get("kept", {}).items():
        print(f"  {name:<12}{policy} the estimate: kept {row['kept']:.3f}, {row['retrains']} retrains", flush=True)


def _errors(row: dict[str, Any]) -> str:
    if not row["windows"]:
        return f"{'none':<54}"
    off = row["off"]
    return (
        f"{row['windows']:>3} windows {off['estimate']:.4f}, promotion {off['promotion']:.4f} "
        f"({row['edge_promotion']:+.1f}σ), recent {off['recent']:.4f} ({row['edge_recent']:+.1f}σ)"
    )


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of sets; the flights are always there")
    parser.add_argument("--cache", type=Path, help="a folder for the scores of all fits")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--label-delays", type=int, nargs="*", default=[1, 4, 8], help="windows until labels are known")
    parser.add_argument("--kept", action="store_true", help="replay the policy with the estimate switched on, too")
    arguments = parser.parse_args(given)
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


if __name__ == "__main__":
    main()
