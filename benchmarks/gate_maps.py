"""How right the gate is about new maps, and probation about newcomers, under known truth.

    python benchmarks/gate_maps.py [--repeats 400] [--json FILE]

Maps: each day of a week has a level of its own that a map fitted on the week mistakes for news. The truth about a map
is its expected loss on fresh days: a wrong promotion is one of a map truly worse than the champion by the margin.
Probation: a newcomer as good as the former champion, looked at daily or weekly for 28 days.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from gate import wilson
from scipy.special import expit

from perennial.definition import GatePolicy
from tasks.calibration.fit import Recalibrator, check_recalibration, fit_recalibration
from tasks.gate.map_court import MapCourt, cross_fitted, judge_mapped
from tasks.gate.probation import Bout, judge_newcomer
from tasks.measures.bootstrap import paired_improvement

Floats = npt.NDArray[np.float64]
MARGIN = GatePolicy().margin
POLICY = GatePolicy(resamples=500)
COURT = MapCourt(POLICY, "classification", "log_loss", None, 0.7, sigmas=1, minimum_rows=100)
FRESH_DAYS, FRESH_ROWS = 1500, 20
START = pd.Timestamp("2026-01-01", tz="UTC")


def levels(days: int, spread: float, memory: float, generator: np.random.Generator) -> Floats:
    """Each day's hidden level; a day is correlated with the day before by `memory`."""
    found = np.empty(days)
    found[0] = generator.normal(0, spread)
    for day in range(1, days):
        found[day] = memory * found[day - 1] + math.sqrt(1 - memory**2) * generator.normal(0, spread)
    return found


def week(spread: float, memory: float, bend: float, rows_per_day: int, generator: np.random.Generator) -> pd.DataFrame:
    """Seven days of answers that are right on average but for `bend`, with their truth."""
    level = np.repeat(levels(7, spread, memory, generator), rows_per_day)
    seen = 1.2 * generator.normal(size=len(level)) - 1
    truth = (generator.random(len(level)) < expit(seen + level)).astype(np.float64)
    time = START + pd.to_timedelta(np.arange(len(level)) / rows_per_day, unit="D")
    score = expit(seen - bend)
    return pd.DataFrame({"time": time, "truth": truth, "raw_score": score, "score": score})


def true_change(fitted: Recalibrator, spread: float, bend: float, generator: np.random.Generator) -> float:
    """By how much of the champion's expected loss on fresh days the map's is greater."""
    seen = 1.2 * generator.normal(size=FRESH_DAYS * FRESH_ROWS) - 1
    chance = expit(seen + np.repeat(generator.normal(0, spread, FRESH_DAYS), FRESH_ROWS))
    before, after = expit(seen - bend), fitted.apply(expit(seen - bend))
    loss = [-np.mean(chance * np.log(said) + (1 - chance) * np.log1p(-said)) for said in (before, after)]
    return float(loss[1] / loss[0] - 1)


def map_rates(repeats: int) -> list[dict[str, Any]]:
    found = []
    print(f"Maps of a week with 2,100 rows, {repeats} repeats, margin {MARGIN:.0%}")
    for spread in (0.0, 0.3, 0.6):
        for memory in (0.0, 0.5) if spread else (0.0,):
            for bend in (0.0, 0.7):
                seed = int(1e6 * (1 + 10 * spread + memory + 100 * bend))
                worlds = [_one_map(spread, memory, bend, seed + at) for at in range(repeats)]
                change, let_in, asked = (np.array(part) for part in zip(*worlds, strict=True))
                wrong = float(np.mean(let_in & (change >= MARGIN)))
                row = {
                    "spread": spread, "memory": memory, "bend": bend, "repeats": repeats,
                    "let_in": float(let_in.mean()), "asked_by_rows_alone": float(asked.mean()),
                    "wrong": wrong, "wrong_interval": wilson(wrong, repeats),
                    "mean_change_let_in": float(change[let_in].mean()) if let_in.any() else None,
                }  # fmt: skip
                found.append(row)
                low, high = row["wrong_interval"]
                print(
                    f"level of days ±{spread:.1f}, memory {memory:.1f}, champion off by {bend:.1f}: let in "
                    f"{row['let_in']:6.1%}, and truly worse by the margin {wrong:5.1%} ({low:.1%} to {high:.1%})",
                    flush=True,
                )
    return found


def _one_map(spread: float, memory: float, bend: float, seed: int) -> tuple[float, bool, bool]:
    """The map's true change of loss, whether the gate lets it in, whether one sigma over rows would have asked."""
    generator = np.random.default_rng(seed)
    rows = week(spread, memory, bend, 300, generator)
    truth, raw = rows["truth"].to_numpy(), rows["raw_score"].to_numpy()
    fitted = fit_recalibration(truth, raw, "classification", method="platt", strength=COURT.strength)
    verdict = judge_mapped(rows.assign(challenger=cross_fitted(rows, COURT)), COURT).verdict
    asked = check_recalibration(truth, raw, raw, "classification", strength=COURT.strength).sigmas > 1
    return true_change(fitted, spread, bend, generator), verdict == "promote", bool(asked)


def probation_rates(repeats: int) -> list[dict[str, Any]]:
    found = []
    for worse in (0.0, 0.3):
        for every in (1, 7):
            ended = [_probation(worse, every, seed) for seed in range(repeats)]
            ours, naive = (float(np.mean([row[at] for row in ended])) for at in (0, 1))
            found.append({"worse": worse, "every_days": every, "rolled_back": ours, "at_one_looks_confidence": naive})
            print(
                f"a newcomer whose errors are greater by {worse:.0%}, looked at every {every} days for 28: rolled back "
                f"{ours:.1%}; with each look at 95 % by itself {naive:.1%}",
                flush=True,
            )
    return found


def _probation(worse: float, every: int, seed: int) -> tuple[bool, bool]:
    generator = np.random.default_rng(seed)
    days = np.repeat(np.arange(28), 50)
    errors = math.sqrt(0.9) * generator.normal(size=(2, len(days)))
    errors += math.sqrt(0.1) * generator.normal(size=(2, 28))[:, days]
    frame = pd.DataFrame({"time": START + pd.to_timedelta(days, unit="D"), "truth": generator.normal(size=len(days))})
    frame = frame.assign(score=(1 + worse) * errors[0], shadow=errors[1])
    ours = naive = False
    for day in range(every, 29, every):
        seen = frame[days < day]
        bout = Bout(GatePolicy(resamples=200), "regression", "mse", 0, None)
        report = judge_newcomer(seen, bout, version=2, former=1)
        ours |= report.verdict == "roll back"
        truth, score, shadow = (seen[name].to_numpy() for name in ("truth", "score", "shadow"))
        interval = paired_improvement(
            "mse", truth, score, shadow, blocks=days[days < day], confidence=0.95, resamples=200
        )  # fmt: skip
        naive |= len(seen) >= GatePolicy().minimum_rows and bool(interval.high < 0)
    return ours, naive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {"maps": map_rates(options.repeats), "probation": probation_rates(options.repeats // 2)}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
