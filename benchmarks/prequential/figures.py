"""What a run is worth: kept gain, shares, regret, by set and over many sets. Nothing is replayed or printed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from prequential.runs import Run
from tasks.check.decision import Decision

GAINS = 0.01  # a set on which always-retraining gains no more than this share of never's loss says nothing of `kept`
Figures = dict[str, Any]


def figures(run: Run, never: Run, always: Run) -> Figures:
    """One policy on one set, JSON-ready."""
    lost = never.loss - always.loss
    found: Figures = {
        "kept": (never.loss - run.loss) / lost if lost else float("nan"),
        "loss": run.loss,
        "gain_of_always": lost / never.loss if never.loss else 0.0,
        "regret": run.loss / min(never.loss, always.loss) - 1,
        "beside_never": run.loss / never.loss - 1,
        "retrains": run.retrains,
        "retrain_share": run.retrains / max(1, always.retrains),
        "recalibrations": run.recalibrations,
        "refused": run.refused,
        "waited": run.waited,
        "undone": run.undone,
        "cpu_seconds": run.cpu_seconds,
        "moments": run.moments,
    }
    return found | (_of_checks(run.decisions) if run.decisions else {})


def _of_checks(decisions: list[Decision]) -> Figures:
    verdicts = [decision.verdict for decision in decisions]
    standing = [len(list(group)) for verdict, group in groupby(verdicts) if verdict == "repair"]
    complaints = Counter(
        signal.name
        for decision in decisions
        if decision.verdict == "repair"
        for signal in decision.signals
        if signal.kind == "health" and signal.fired
    )
    return {
        "verdicts": dict(sorted(Counter(verdicts).items())),
        "repair_share": verdicts.count("repair") / len(verdicts),
        "repair_longest": max(standing, default=0),
        "complaints": dict(complaints.most_common(3)),
    }


def gains(sets: Mapping[str, Mapping[str, Figures]]) -> list[str]:
    """The sets on which always-retraining gains enough for `kept` to mean something."""
    return [name for name, rows in sets.items() if next(iter(rows.values()))["gain_of_always"] > GAINS]


def summarise(sets: Mapping[str, Mapping[str, Figures]], names: Iterable[str] | None = None) -> dict[str, Figures]:
    """Each policy over the named sets, all by default: `kept` where something is to be gained, regret elsewhere."""
    chosen = {name: sets[name] for name in (names if names is not None else sets)}
    if not chosen:
        return {}
    paying = [name for name in gains(sets) if name in chosen]
    idle = [name for name in chosen if name not in paying]
    policies = dict.fromkeys(policy for rows in chosen.values() for policy in rows)
    return {policy: _over(policy, chosen, paying, idle) for policy in policies}


def _over(policy: str, sets: Mapping[str, Mapping[str, Figures]], paying: list[str], idle: list[str]) -> Figures:
    def of(key: str, names: Iterable[str]) -> list[float]:
        return [sets[name][policy][key] for name in names if key in sets[name].get(policy, {})]

    kept, regret, beside = of("kept", paying), of("regret", idle), of("beside_never", sets)
    row: Figures = {
        "sets": len(kept),
        "kept_mean": float(np.mean(kept)) if kept else None,
        "kept_10th": float(np.quantile(kept, 0.1)) if kept else None,
        "kept_smallest": min(kept, default=None),
        "idle_sets": len(regret),
        "regret_mean": float(np.mean(regret)) if regret else None,
        "regret_largest": max(regret, default=None),
        "beside_never_largest": max(beside, default=None),
        "retrain_share_mean": float(np.mean(of("retrain_share", sets))),
        "retrain_share_largest": max(of("retrain_share", sets)),
        "recalibrations": int(sum(of("recalibrations", sets))),
        "refused": int(sum(of("refused", sets))),
        "waited": int(sum(of("waited", sets))),
        "undone": int(sum(of("undone", sets))),
        "cpu_seconds": sum(of("cpu_seconds", sets)),
    }
    if longest := of("repair_longest", sets):
        checks = [sum(sets[name][policy]["verdicts"].values()) for name in sets]
        repairs = [sets[name][policy]["verdicts"].get("repair", 0) for name in sets]
        row |= {"repair_share": sum(repairs) / sum(checks), "repair_longest": int(max(longest))}
    if calendar := of("kept_of_calendar", paying):
        row |= {
            "calendar_kept_mean": float(np.mean(calendar)),
            "calendar_better_on": [n for n in paying if sets[n][policy]["kept_of_calendar"] > sets[n][policy]["kept"]],
        }
    return row
