"""Prequential proof of the decisions: quality kept beside retrains spent, false alarms, faults named, shifts found.

    python benchmarks/build_sets.py
    python benchmarks/decisions.py --half held-out --json FILE

For each set: predict a window, its labels arrive one window later (`--label-delay-windows 0`: at its end), then decide.
Kept is (never - policy) / (never - always) in mean loss, over the sets where always-retraining gains more than 1 % of
never's loss; elsewhere the regret beside the better of the two is told. The retrain share is a policy's retrains over
always's. `perennial` is what ships: `tasks.check.decision.check` with the default policy, and behind it the default
gate and probation (`--without-gate`: none). Defaults are chosen on the half `chosen-on` (`known/halves.py`) and
reported on the half `held-out`; sets made since are `later`. Each set's fits are done once (`--cache`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from known.halves import CHOSEN, HELD_OUT, LATER, half_of
from prequential.baselines import evenly, make_policies
from prequential.faults import measure_false_alarms, measure_faults, measure_shifts
from prequential.figures import figures, summarise
from prequential.learned import measure_learned
from prequential.replay import Replay
from prequential.runs import Run, run_chooser, run_perennial
from prequential.scores import score_matrix
from prequential.sets import HOME, find_sets, load_set
from prequential.tables import print_faults, print_learned, print_policies, print_rates, print_sets, print_shifts

from perennial.definition import GatePolicy, Triggers
from perennial.settings import PROJECT_ROOT

ALONE = ("quality", "drift", "growth", "estimate")
BASELINES = ("every_4th", "every_8th")
HALVES = (CHOSEN, HELD_OUT, LATER)
PARTS = ("policies", "false_alarms", "faults", "shifts", "learned")
SHARED = PROJECT_ROOT.parent / "shared" / "data"


def measure_set(replay: Replay, names: list[str], gate: GatePolicy | None, cache: Path | None) -> dict[str, Any]:
    """The baselines' figures under `sets`, and Perennial's under `gated`, or without a gate under `sets` too."""
    makers = make_policies(cache)
    runs: dict[str, Run] = {}
    for name in dict.fromkeys(["never", "always", *names]):
        began = time.perf_counter()
        if name in makers:
            runs[name] = run_chooser(replay, makers[name](replay))
        else:
            runs[name] = run_perennial(replay, _policy(replay, name), gate)
        print(f"  {replay.data.name} {name}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    found = {name: figures(run, runs["never"], runs["always"]) for name, run in runs.items()}
    ours = [name for name in found if name not in makers]
    for name in ours:
        calendar = run_chooser(replay, evenly(runs[name].retrains)(replay)) if runs[name].retrains else runs["never"]
        found[name]["kept_of_calendar"] = figures(calendar, runs["never"], runs["always"])["kept"]
    if gate is None:
        return {"sets": found}
    baselines = {name: row for name, row in found.items() if name in makers}
    return {"sets": baselines, "gated": {name: found[name] for name in ours}} if ours else {"sets": baselines}


def measure(folder: Path | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every part asked for, of one set."""
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    data = load_set(folder)
    replay = Replay(data, score_matrix(data, arguments.cache), arguments.label_delay_windows)
    print(f"  {data.name}: fits {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    gate = None if arguments.without_gate else GatePolicy(**({"doubt": arguments.doubt} if arguments.doubt else {}))
    parts: dict[str, Any] = {}
    if "policies" in arguments.parts:
        parts |= measure_set(replay, arguments.policies, gate, arguments.cache)
    if "false_alarms" in arguments.parts:
        parts["shuffled"] = measure_false_alarms(replay)
    if "faults" in arguments.parts:
        parts["faults"] = measure_faults(replay)
    if "shifts" in arguments.parts:
        parts["shifts"] = measure_shifts(replay)
    if "learned" in arguments.parts:
        parts["learned"] = measure_learned(replay, gate, arguments.cache)
    print(f"  {data.name}: all {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return parts


def main(given: list[str] | None = None) -> None:
    arguments = _arguments(given)
    began = time.perf_counter()
    found = find_sets(arguments.data, arguments.sets)
    halves = {name: half_of(name) for name in found}
    if arguments.half != "all":
        found = {name: folder for name, folder in found.items() if halves[name] == arguments.half}
    if not found:
        raise SystemExit(f"no set of the half {arguments.half} in {', '.join(map(str, arguments.data))}")
    result: dict[str, Any] = {"label_delay_windows": arguments.label_delay_windows}
    for name, parts in _measure_all(found, arguments).items():
        for part, made in parts.items():
            result.setdefault(part, {})[name] = made
    result["halves"] = {name: halves[name] for name in found}
    _summarise(result, halves)
    _print(result, halves)
    result["seconds"] = time.perf_counter() - began
    print(f"\n{len(found)} sets in {result['seconds']:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    if result.get("failed"):
        raise SystemExit("not measured: " + "; ".join(f"{n}: {why}" for n, why in result["failed"].items()))


def _summarise(result: dict[str, Any], halves: dict[str, str]) -> None:
    """Put each part's summary over all sets and over each half into the result."""
    if "sets" in result:
        result["summary"], result["by_half"] = summarise(result["sets"]), _by_half(result["sets"], halves)
    if "gated" in result:
        sets = result["gated"]
        result["gated"] = {"sets": sets, "summary": summarise(sets), "by_half": _by_half(sets, halves)}


def _by_half(sets: dict[str, Any], halves: dict[str, str]) -> dict[str, Any]:
    return {half: summarise(sets, [n for n in sets if halves[n] == half]) for half in HALVES}


def _print(result: dict[str, Any], halves: dict[str, str]) -> None:
    """The halves, and later sets, apart."""
    for half in HALVES:
        names = {name for name in result["halves"] if halves[name] == half}

        def of(part: str, names: set[str] = names) -> dict[str, Any]:
            return {name: row for name, row in result.get(part, {}).items() if name in names}

        if of("sets") and result["by_half"][half]:
            print_policies(
                f"{half}, {'without a gate' if 'gated' not in result else 'baselines'}:", result["by_half"][half]
            )
        if "gated" in result and result["gated"]["by_half"][half]:
            print_policies(f"{half}, as it ships, gate and probation in:", result["gated"]["by_half"][half])
        if of("shuffled"):
            print_rates(f"{half}, shuffled", of("shuffled"))
        if of("faults"):
            print_faults(f"{half}, faults named:", of("faults"))
        if of("shifts"):
            print_shifts(f"{half}, shifts found:", of("shifts"))
        if of("learned"):
            print_learned(f"{half}, after a fault was mended:", of("learned"))
    ours = result["gated"]["sets"] if "gated" in result else result.get("sets", {})
    if all("perennial" in rows for rows in ours.values()) and ours:
        print_sets("perennial, set by set:", "perennial", ours, halves)


def _measure_all(found: dict[str, Path | None], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Each set's figures in the order found; one that can't be measured has `failed` with the reason."""
    made: dict[str, dict[str, Any]] = {}
    with _executor(arguments.processes) as pool:
        runs = {name: pool.submit(measure, folder, arguments) for name, folder in found.items()}
        for name, run in runs.items():
            error = run.exception()
            if error is None:
                made[name] = run.result()
            else:  # one set in disorder does not cost the figures of the others
                print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
                made[name] = {"failed": f"{type(error).__name__}: {error}"}
    return made


def _executor(processes: int) -> Executor:
    """Of so many processes; one alone is this one."""
    if processes == 1:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))


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


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [folder for folder in (SHARED, HOME / "sets") if folder.is_dir()]
    parser.add_argument(
        "--data", type=Path, nargs="*", default=default, help="folders of sets; the flights are always there"
    )
    parser.add_argument("--half", choices=(*HALVES, "all"), default="all", help="only these sets")
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--cache", type=Path, default=HOME / "scores", help="a folder for the scores of all fits")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--without-gate", action="store_true", help="let in every challenger and map; no probation")
    parser.add_argument("--doubt", help="another answer of the gate to doubt than the shipped default")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="sets measured at the same time; 1: in this process"
    )
    parser.add_argument(
        "--label-delay-windows", "--label-delay", type=int, default=1, help="windows until a window's labels are known"
    )
    known = ", ".join(make_policies(None))
    parser.add_argument("--policies", nargs="*", default=[*BASELINES, "perennial"], help=f"perennial, or {known}")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=[*PARTS])
    arguments = parser.parse_args(given)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


if __name__ == "__main__":
    main()
