"""Prequential proof of the decisions: quality kept beside retrains spent, false alarms, faults named, shifts found.

    python benchmarks/decisions.py --data FOLDER --cache CACHE --json FILE

For each set: predict a window, its labels arrive one window later (`--label-delay 0`: at its end), then decide. Kept is
(never - policy) / (never - always) in mean loss; the retrain share is a policy's retrains over always's. `perennial` is
`tasks.decision.check` with the default policy, the code that decides live. Each set's fits are done once (`--cache`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from baselines import make_policies
from drifting_sets import load_sets, score_matrix
from faults import measure_false_alarms, measure_faults, measure_shifts
from replay import Replay, Run, run_chooser, run_perennial

from perennial.definition import Triggers

ALONE = ("quality", "drift", "growth")


def measure_set(replay: Replay, names: list[str], cache: Path | None) -> dict[str, Any]:
    """Every policy's figures on one set, by its name."""
    makers = make_policies(cache)
    runs: dict[str, Run] = {}
    for name in dict.fromkeys(["never", "always", *names]):
        began = time.perf_counter()
        if name in makers:
            runs[name] = run_chooser(replay, makers[name](replay))
        else:
            runs[name] = run_perennial(replay, _policy(replay, name))
        print(f"  {replay.data.name} {name}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    lost = runs["never"].loss - runs["always"].loss
    figures: dict[str, Any] = {}
    for name, run in runs.items():
        figures[name] = {
            "kept": (runs["never"].loss - run.loss) / lost,
            "loss": run.loss,
            "retrains": run.retrains,
            "retrain_share": run.retrains / max(1, runs["always"].retrains),
            "recalibrations": run.recalibrations,
            "cpu_seconds": run.cpu_seconds,
            "moments": run.moments,
        }
        if run.decisions:
            verdicts = [decision.verdict for decision in run.decisions]
            figures[name]["verdicts"] = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
            figures[name]["repair_share"] = verdicts.count("repair") / len(verdicts)
    return figures


def summarise(sets: dict[str, Any]) -> dict[str, Any]:
    """Each policy over all sets: mean and smallest kept, mean share of retrains."""
    policies = list(next(iter(sets.values())))
    return {
        name: {
            "kept_mean": float(np.mean([figures[name]["kept"] for figures in sets.values()])),
            "kept_smallest": float(min(figures[name]["kept"] for figures in sets.values())),
            "retrain_share_mean": float(np.mean([figures[name]["retrain_share"] for figures in sets.values()])),
            "recalibrations": sum(figures[name]["recalibrations"] for figures in sets.values()),
            "cpu_seconds": sum(figures[name]["cpu_seconds"] for figures in sets.values()),
        }
        for name in policies
    }


def main() -> None:
    arguments = _arguments()
    warnings.simplefilter("ignore")
    data = load_sets(arguments.data, arguments.sets)
    replays = [Replay(one, score_matrix(one, arguments.cache), arguments.label_delay) for one in data]
    result: dict[str, Any] = {"label_delay_windows": arguments.label_delay}
    if "policies" in arguments.parts:
        result["sets"] = {r.data.name: measure_set(r, arguments.policies, arguments.cache) for r in replays}
        result["summary"] = summarise(result["sets"])
        _print_policies(result)
    if "false_alarms" in arguments.parts:
        result["shuffled"] = {r.data.name: measure_false_alarms(r) for r in replays}
        _print_rates("shuffled sets", result["shuffled"])
    if "faults" in arguments.parts:
        result["faults"] = {r.data.name: measure_faults(r) for r in replays}
        _print_faults(result["faults"])
    if "shifts" in arguments.parts:
        result["shifts"] = {r.data.name: measure_shifts(r) for r in replays}
        _print_shifts(result["shifts"])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


def _policy(replay: Replay, name: str) -> Any:
    """`perennial`, or one trigger alone (`perennial_growth`, …), or without recalibration."""
    kind = name.removeprefix("perennial").removeprefix("_")
    if kind == "":
        return replay.policy()
    if kind == "no_recalibration":
        return replay.policy(recalibrate=False)
    if kind not in ALONE:
        raise SystemExit(f"no policy is called {name!r}")
    triggers = Triggers(**{trigger: trigger == kind for trigger in (*ALONE, "schedule")})
    return replay.policy(recalibrate=False, triggers=triggers, drift_alone="always")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of sets; the flights are always there")
    parser.add_argument("--cache", type=Path, help="a folder for the scores of all fits")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--label-delay", type=int, default=1, help="windows until a window's labels are known")
    parser.add_argument("--policies", nargs="*", default=[*make_policies(None), "perennial"])
    parser.add_argument("--parts", nargs="*", default=["policies", "false_alarms", "faults", "shifts"])
    arguments = parser.parse_args()
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


def _print_policies(result: dict[str, Any]) -> None:
    print(f"{'policy':<24}{'kept':>7}{'least':>7}{'share':>7}{'recal.':>8}{'CPU s':>8}   kept per set")
    for name, row in result["summary"].items():
        each = "  ".join(f"{s} {figures[name]['kept']:.2f}" for s, figures in result["sets"].items())
        print(
            f"{name:<24}{row['kept_mean']:>7.3f}{row['kept_smallest']:>7.3f}{row['retrain_share_mean']:>7.3f}"
            f"{row['recalibrations']:>8}{row['cpu_seconds']:>8.0f}   {each}"
        )


def _print_rates(title: str, rates: dict[str, Any]) -> None:
    checks = sum(row["checks"] for row in rates.values())
    for key in ("alarms", "fired", "repairs"):
        count = sum(row[key] for row in rates.values())
        print(f"{title}: {key} in {count} of {checks} checks ({count / checks:.2%})")


def _print_faults(sets: dict[str, Any]) -> None:
    print(f"{'fault':<20}{'weak':>12}{'medium':>12}{'strong':>12}   named / injected")
    kinds = dict.fromkeys(kind for row in sets.values() for kind in row["named"])
    total = {"weak": [0, 0], "medium": [0, 0], "strong": [0, 0]}
    for kind in kinds:
        cells = ""
        for strength, sums in total.items():
            named = [row["named"][kind][strength] for row in sets.values() if kind in row["named"]]
            found, tried = sum(n for n, _ in named), sum(t for _, t in named)
            sums[0], sums[1] = sums[0] + found, sums[1] + tried
            cells += f"{f'{found}/{tried}':>12}"
        print(f"{kind:<20}{cells}")
    print(f"{'all':<20}" + "".join(f"{found / max(1, tried):>12.1%}" for found, tried in total.values()))
    checks, repairs = sum(r["checks"] for r in sets.values()), sum(r["repairs"] for r in sets.values())
    print(f"untouched: repair in {repairs} of {checks} checks ({repairs / checks:.2%})")


def _print_shifts(sets: dict[str, Any]) -> None:
    print(f"{'shift':<12}{'detector':<16}{'found':>10}{'delay, windows':>16}{'false before':>14}")
    keys = dict.fromkeys((s, d) for row in sets.values() for s in row for d in row[s])
    for shift, detector in keys:
        rows = [row[shift][detector] for row in sets.values() if shift in row]
        delays = [row["delay"] for row in rows if row["delay"] is not None]
        mean = f"{np.mean(delays):.1f}" if delays else "–"
        false = sum(row["false_before"] for row in rows) / max(1, sum(row["checks_before"] for row in rows))
        print(f"{shift:<12}{detector:<16}{f'{len(delays)}/{len(rows)}':>10}{mean:>16}{false:>14.1%}")


if __name__ == "__main__":
    main()
