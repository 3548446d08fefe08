"""Prequential proof of the decisions: quality kept beside retrains spent, false alarms, faults named, shifts found.

    python benchmarks/decisions.py --data FOLDER --cache CACHE --json FILE

For each set: predict a window, its labels arrive one window later (`--label-delay 0`: at its end), then decide. Kept is
(never - policy) / (never - always) in mean loss; the retrain share is a policy's retrains over always's. `perennial` is
`tasks.check.decision.check` with the default policy, the code that decides live. Each set's fits are done once
(`--cache`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from prequential.baselines import make_policies
from prequential.faults import measure_false_alarms, measure_faults, measure_shifts
from prequential.replay import Replay
from prequential.runs import Run, run_chooser, run_perennial
from prequential.scores import score_matrix
from prequential.sets import find_sets, load_set

from perennial.definition import GatePolicy, Triggers

ALONE = ("quality", "drift", "growth", "estimate")


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
    return {name: _figures(run, runs["never"], runs["always"]) for name, run in runs.items()}


def measure_gated(replay: Replay, names: list[str], gate: GatePolicy) -> dict[str, Any]:
    """Perennial's own policies again, now with the live gate before and the probation after; kept as without them."""
    makers = make_policies(None)
    never, always = (run_chooser(replay, makers[name](replay)) for name in ("never", "always"))
    runs = {
        name: run_perennial(replay, _policy(replay, name), gate) for name in names if name not in makers
    }  # fmt: skip
    return {name: _figures(run, never, always) for name, run in runs.items()}


def _figures(run: Run, never: Run, always: Run) -> dict[str, Any]:
    lost = never.loss - always.loss
    figures: dict[str, Any] = {
        "kept": (never.loss - run.loss) / lost if lost else float("nan"),
        "loss": run.loss,
        "retrains": run.retrains,
        "retrain_share": run.retrains / max(1, always.retrains),
        "recalibrations": run.recalibrations,
        "refused": run.refused,
        "undone": run.undone,
        "cpu_seconds": run.cpu_seconds,
        "moments": run.moments,
    }
    if run.decisions:
        verdicts = [decision.verdict for decision in run.decisions]
        figures["verdicts"] = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
        figures["repair_share"] = verdicts.count("repair") / len(verdicts)
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


def measure(folder: Path | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every part asked for, of one set; in a process of its own."""
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    data = load_set(folder)
    replay = Replay(data, score_matrix(data, arguments.cache), arguments.label_delay)
    print(f"  {data.name}: fits {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    parts: dict[str, Any] = {}
    if "policies" in arguments.parts:
        parts["sets"] = measure_set(replay, arguments.policies, arguments.cache)
        if arguments.gate:
            parts["gated"] = measure_gated(replay, arguments.policies, GatePolicy(doubt=arguments.doubt))
    if "false_alarms" in arguments.parts:
        parts["shuffled"] = measure_false_alarms(replay)
    if "faults" in arguments.parts:
        parts["faults"] = measure_faults(replay)
    if "shifts" in arguments.parts:
        parts["shifts"] = measure_shifts(replay)
    print(f"  {data.name}: all {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return parts


def main() -> None:
    arguments = _arguments()
    found = find_sets(arguments.data, arguments.sets)
    result: dict[str, Any] = {"label_delay_windows": arguments.label_delay}
    for name, parts in _measure_all(found, arguments).items():
        for part, figures in parts.items():
            result.setdefault(part, {})[name] = figures
    if "sets" in result:
        result["summary"] = summarise(result["sets"])
        _print_policies(result["summary"], result["sets"])
    if "gated" in result:
        result["gated"] = {"sets": result["gated"], "summary": summarise(result["gated"])}
        print("with the live gate:")
        _print_policies(result["gated"]["summary"], result["gated"]["sets"])
    if "shuffled" in result:
        _print_rates("shuffled sets", result["shuffled"])
    if "faults" in result:
        _print_faults(result["faults"])
    if "shifts" in result:
        _print_shifts(result["shifts"])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    if result.get("failed"):
        raise SystemExit("not measured: " + "; ".join(f"{n}: {why}" for n, why in result["failed"].items()))


def _measure_all(found: dict[str, Path | None], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Each set's figures in the order found; one that can't be measured has `failed` with the reason."""
    made: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        runs = {name: pool.submit(measure, folder, arguments) for name, folder in found.items()}
        for name, run in runs.items():
            error = run.exception()
            if error is None:
                made[name] = run.result()
            else:  # one set in disorder does not cost the figures of the others
                print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
                made[name] = {"failed": f"{type(error).__name__}: {error}"}
    return made


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
    parser.add_argument("--gate", action="store_true", help="also with the live gate before challengers and maps")
    parser.add_argument("--doubt", choices=("keep", "promote"), default="keep", help="that gate's answer to doubt")
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="sets measured at the same time")
    parser.add_argument("--label-delay", type=int, default=1, help="windows until a window's labels are known")
    parser.add_argument("--policies", nargs="*", default=[*make_policies(None), "perennial"])
    parser.add_argument("--parts", nargs="*", default=["policies", "false_alarms", "faults", "shifts"])
    arguments = parser.parse_args()
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


def _print_policies(summary: dict[str, Any], sets: dict[str, Any]) -> None:
    print(f"{'policy':<24}{'kept':>7}{'least':>7}{'share':>7}{'recal.':>8}{'CPU s':>8}   kept per set")
    for name, row in summary.items():
        each = "  ".join(f"{s} {figures[name]['kept']:.2f}" for s, figures in sets.items())
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
