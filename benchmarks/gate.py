"""How fast and how right the gate is: interval time beside a plain loop, and promotion rates under known truth.

    python benchmarks/gate.py [--repeats 200] [--margin 0.02] [--tasks regression] [--doubt keep] [--json FILE]

Rates: rows of days with their own hidden level (and, where said, days that follow each other), models that are wrong
in their own way on each row and on whole days, so that the truth about their expected loss is known: worse than the
champion by the margin, or better by twice the margin.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from perennial.definition import Doubt, GatePolicy
from tasks.gate.court import judge
from tasks.gate.evidence import Evidence
from tasks.gate.probation import PROBATION_WINDOWS, Bout, judge_newcomer, judge_waiting
from tasks.measures.bootstrap import paired_improvement

Floats = npt.NDArray[np.float64]
Task = Literal["classification", "regression"]
CHAMPION_ERROR = 0.45
NOISE = 1.0
KINDS = ("worse", "better")
WEEK = 7
WINDOWS = 13  # of later rows: the longest wait, and a probation after it
SOON = 4  # windows within which a truly better challenger should be in


@dataclass(frozen=True)
class World:
    """One kind of data: how rows come, and how alike the errors of two models are."""

    task: Task
    days: int = 50
    rows_per_day: int = 100
    day_effect: float = 0.0  # share of the hidden level and of the models' errors that a whole day has in common
    memory: float = 0.0  # correlation of a day with the day before
    alike: float = 0.5  # correlation of the two models' errors

    @property
    def rows(self) -> int:
        return self.days * self.rows_per_day


def draws(world: World, days: int, generator: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Seen signal, hidden level, and two models' unit errors (2, rows)."""
    rows = days * world.rows_per_day

    def mixed(count: int) -> Floats:
        daily = np.empty((count, days))
        daily[:, 0] = generator.normal(size=count)
        for day in range(1, days):
            fresh = math.sqrt(1 - world.memory**2) * generator.normal(size=count)
            daily[:, day] = world.memory * daily[:, day - 1] + fresh
        own = generator.normal(size=(count, rows))
        share = world.day_effect
        result: Floats = math.sqrt(share) * np.repeat(daily, world.rows_per_day, axis=1) + math.sqrt(1 - share) * own
        return result

    parts = mixed(3)
    other = world.alike * parts[1] + math.sqrt(1 - world.alike**2) * parts[2]
    return 1.2 * generator.normal(size=rows) - 1, 0.5 * parts[0], np.stack([parts[1], other])


def expected_loss(world: World, seen: Floats, hidden: Floats, error: Floats) -> float:
    """The loss of a score that is wrong by `error`, averaged over the truth and not drawn."""
    if world.task == "regression":
        return float(np.mean((hidden - error) ** 2) + NOISE**2)
    chance, said = expit(seen + hidden), expit(seen + error)
    return float(-np.mean(chance * np.log(said) + (1 - chance) * np.log1p(-said)))


@lru_cache
def challenger_error(world: World, change: float) -> float:
    """How wrong a challenger is, in units of its error, whose expected loss is (1 + change) times the champion's."""
    seen, hidden, errors = draws(world, 4000, np.random.default_rng(12345))
    wanted = (1 + change) * expected_loss(world, seen, hidden, CHAMPION_ERROR * errors[0])
    low, high = 0.0, 4.0
    for _ in range(40):
        middle = (low + high) / 2
        if expected_loss(world, seen, hidden, middle * errors[0]) < wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def simulate(world: World, change: float, seed: int) -> Evidence:
    """Evidence for a challenger whose expected loss is (1 + change) times the champion's."""
    generator = np.random.default_rng(seed)
    seen, hidden, errors = draws(world, world.days, generator)
    scores = [seen + CHAMPION_ERROR * errors[0], seen + challenger_error(world, change) * errors[1]]
    if world.task == "classification":
        truth = (generator.random(world.rows) < expit(seen + hidden)).astype(np.float64)
        scores, baseline = [expit(score) for score in scores], np.full(world.rows, 0.3)
    else:
        truth, baseline = seen + hidden + NOISE * generator.normal(size=world.rows), np.full(world.rows, -1.0)
    blocks = np.repeat(np.arange(world.days), world.rows_per_day)
    return Evidence(truth, scores[1], scores[0], baseline, 0, blocks=blocks)


def promotion_rate(world: World, change: float, policy: GatePolicy, repeats: int, seed: int = 0) -> float:
    """The share of challengers with this truth that are promoted."""
    metric = "log_loss" if world.task == "classification" else "mse"
    reports = [
        judge(simulate(world, change, seed + at), policy, task=world.task, metric=metric, seed=at, every_metric=False)
        for at in range(repeats)
    ]
    return sum(report.verdict == "promote" for report in reports) / repeats


@dataclass(frozen=True)
class Fate:
    """What became of a challenger from the gate to the end of its probation.

    Attributes:
        first: The gate's verdict.
        entered: After how many windows of later rows it was let in; None if never.
        stays: Whether it is champion in the end.
    """

    first: str
    entered: int | None
    stays: bool


def whole_path(world: World, change: float, policy: GatePolicy, seed: int) -> Fate:
    """The same challenger judged, looked at again each week while it waits, and on probation once it is in."""
    at_gate = simulate(world, change, seed)
    metric = "log_loss" if world.task == "classification" else "mse"
    first = judge(at_gate, policy, task=world.task, metric=metric, seed=seed).verdict
    later = simulate(replace(world, days=WINDOWS * WEEK), change, seed + 500_000)
    day = np.repeat(np.arange(WINDOWS * WEEK), world.rows_per_day)
    rows = pd.DataFrame(
        {
            "time": pd.Timestamp("2026-01-05", tz="UTC") + pd.to_timedelta(day, unit="D"),
            "truth": later.truth, "score": later.challenger, "shadow": later.champion,
        }
    )  # fmt: skip
    bout = Bout(policy, world.task, metric, seed, None)
    entered = 0 if first == "promote" else None
    if first not in ("promote", "wait"):
        return Fate(first, None, False)
    for window in range(1, WINDOWS + 1):
        known = rows[day < window * WEEK]
        if entered is None:
            up = window > policy.wait_windows
            verdict = judge_waiting(known, bout, version=2, former=1, time_is_up=up).verdict
            if verdict == "give up":
                return Fate(first, None, False)
            entered = window if verdict == "promote" else None
        elif window <= entered + PROBATION_WINDOWS:
            last = window == entered + PROBATION_WINDOWS
            if judge_newcomer(known, bout, version=2, former=1, last=last).verdict == "roll back":
                return Fate(first, entered, False)
    return Fate(first, entered, entered is not None)


def path_rates(repeats: int, margin: float, tasks: list[str], doubt: Doubt) -> list[dict[str, Any]]:
    """The share of challengers of each truth that are in for good, and within how many windows."""
    policy = GatePolicy(margin=margin, doubt=doubt, resamples=400)
    found = []
    print(f"Whole path of {repeats} challengers: judged, waited, promoted, rolled back")
    for at, (name, world) in enumerate(worlds().items(), 1):
        if world.task not in tasks:
            continue
        row: dict[str, Any] = {"world": name, "repeats": repeats}
        for kind, change in zip(KINDS, (margin, -2 * margin), strict=True):
            paths = [whole_path(world, change, policy, at * 1_000_000 + seed) for seed in range(repeats)]
            soon = [path.entered is not None and path.entered <= SOON for path in paths]
            row[kind] = {
                "in_for_good": float(np.mean([path.stays for path in paths])),
                "in_soon_and_stays": float(np.mean([s and path.stays for s, path in zip(soon, paths, strict=True)])),
                "waited": float(np.mean([path.first == "wait" for path in paths])),
            }
        row["expected_harm"] = margin * row["worse"]["in_for_good"]
        found.append(row)
        print(
            f"{name:<62} worse by the margin, in for good {row['worse']['in_for_good']:6.1%}   better by twice, in "
            f"within {SOON} windows {row['better']['in_soon_and_stays']:6.1%}",
            flush=True,
        )
    return found


def worlds() -> dict[str, World]:
    tasks: tuple[Task, ...] = ("classification", "regression")
    return {
        f"{task}, {name}": world
        for task in tasks
        for name, world in (
            ("independent rows", World(task)),
            ("alike within days", World(task, day_effect=0.1)),
            ("alike within days, days follow each other", World(task, day_effect=0.1, memory=0.5)),
            ("10 days, alike within days", World(task, days=10, rows_per_day=500, day_effect=0.02)),
            ("7 days, alike within days", World(task, days=7, rows_per_day=714, day_effect=0.02)),
        )
    }


def rates(repeats: int, margin: float, tasks: list[str], doubt: Doubt) -> list[dict[str, Any]]:
    found = []
    policy = GatePolicy(margin=margin, doubt=doubt)
    print(f"Share promoted of {repeats} challengers, margin {margin:.1%}, 5,000 rows, gate.doubt: {doubt}")
    for at, (name, world) in enumerate(worlds().items(), 1):
        if world.task not in tasks:
            continue
        worse = promotion_rate(world, margin, policy, repeats, seed=2 * at * 1_000_000)
        better = promotion_rate(world, -2 * margin, policy, repeats, seed=(2 * at + 1) * 1_000_000)
        row: dict[str, Any] = {"world": name, "margin": margin, "repeats": repeats, "worse": worse, "better": better}
        row |= {"worse_interval": wilson(worse, repeats), "better_interval": wilson(better, repeats)}
        found.append(row)
        shown = [
            f"{row[key]:6.1%} ({low:.1%} to {high:.1%})" for key in KINDS for low, high in [row[f"{key}_interval"]]
        ]
        print(f"{name:<62} worse by the margin {shown[0]:<24} better by twice {shown[1]}", flush=True)
    return found


def wilson(rate: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a measured rate."""
    middle = (rate + 1.92 / count) / (1 + 3.84 / count)
    reach = 1.96 * math.sqrt(rate * (1 - rate) / count + 0.96 / count**2) / (1 + 3.84 / count)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def speed(rows: int, resamples: int, loops: int) -> list[dict[str, Any]]:
    from sklearn.metrics import log_loss, roc_auc_score

    generator = np.random.default_rng(0)
    chance = expit(generator.normal(size=rows))
    truth = (generator.random(rows) < chance).astype(np.float64)
    first, second = (expit(logit(chance) + size * generator.normal(size=rows)) for size in (0.1, 0.2))
    blocks = np.arange(rows) // 100
    members = [np.flatnonzero(blocks == block) for block in range(blocks[-1] + 1)]
    found = []
    for metric, measure, sign in (("log_loss", log_loss, 1), ("roc_auc", roc_auc_score, -1)):
        paired_improvement(metric, truth, first, second, blocks=blocks, resamples=100)
        start = time.perf_counter()
        interval = paired_improvement(metric, truth, first, second, blocks=blocks, resamples=resamples)
        ours = time.perf_counter() - start
        start = time.perf_counter()
        values = []
        for _ in range(loops):
            drawn = np.concatenate([members[at] for at in generator.integers(0, len(members), len(members))])
            values.append(sign * (measure(truth[drawn], second[drawn]) - measure(truth[drawn], first[drawn])))
        plain = (time.perf_counter() - start) / loops * resamples
        width = float(np.diff(np.quantile(values, [0.025, 0.975]))[0])
        ratio = {"metric": metric, "rows": rows, "resamples": resamples, "seconds": ours, "plain_loop_seconds": plain}
        ratio |= {"plain_loop_resamples_measured": loops, "ratio": ours / plain}
        ratio |= {"interval_width": interval.high - interval.low, "plain_loop_interval_width": width}
        found.append(ratio)
        print(
            f"{metric}: {ours:.2f} s for {resamples:,} resamples of {rows:,} rows; plain loop {plain:.0f} s "
            f"(from {loops}): {plain / ours:.0f} times; interval widths {ratio['interval_width']:.5f}, {width:.5f}"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", default=["classification", "regression"])
    parser.add_argument("--margin", type=float, default=GatePolicy().margin)
    parser.add_argument(
        "--doubt", choices=("wait", "keep", "promote"), default="wait", help="the gate's answer to doubt"
    )
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--loops", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {
        "speed": speed(options.rows, options.resamples, options.loops),
        "rates": rates(options.repeats, options.margin, options.tasks, options.doubt),
        "paths": path_rates(options.repeats, options.margin, options.tasks, options.doubt),
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
