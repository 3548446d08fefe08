"""The figures as tables for a terminal. No figure is made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Figures = dict[str, Any]


def print_policies(title: str, summary: Mapping[str, Figures]) -> None:
    """A line a policy: kept where something is to be gained, regret where not."""
    lines = [
        {
            "policy": name,
            "sets": row["sets"],
            "kept": _of(row["kept_mean"]),
            "10th": _of(row["kept_10th"]),
            "least": _of(row["kept_smallest"]),
            "share": f"{row['retrain_share_mean']:.1%}",
            "most": f"{row['retrain_share_largest']:.0%}",
            "repair": f"{row['repair_share']:.2%}" if "repair_share" in row else "",
            "longest": row.get("repair_longest", ""),
            "refused": row["refused"],
            "waited": row["waited"],
            "undone": row["undone"],
            "idle sets": row["idle_sets"],
            "regret": _of(row["regret_mean"]),
            "largest": _of(row["regret_largest"]),
            "beside never, worst": f"{row['beside_never_largest']:+.1%}",
        }
        for name, row in summary.items()
    ]
    _print(title, lines)
    for name, row in summary.items():
        if "calendar_better_on" in row:
            better = ", ".join(row["calendar_better_on"]) or "no set"
            print(
                f"{name}: a calendar with as many trainings keeps {row['calendar_kept_mean']:.3f}; better on {better}"
            )


def print_sets(title: str, policy: str, sets: Mapping[str, Mapping[str, Figures]], halves: Mapping[str, str]) -> None:
    """A line a set for one policy, the worst kept first."""
    ordered = sorted(((name, rows[policy]) for name, rows in sets.items()), key=lambda item: float(item[1]["kept"]))
    lines = [
        {
            "set": name,
            "half": halves[name],
            "gain of always": f"{row['gain_of_always']:.1%}",
            "kept": _of(row["kept"], 2),
            "calendar": _of(row.get("kept_of_calendar"), 2),
            "share": f"{row['retrain_share']:.0%}",
            "maps": row["recalibrations"],
            "refused": row["refused"],
            "waited": row["waited"],
            "undone": row["undone"],
            "repair": f"{row.get('repair_share', 0):.1%}",
            "longest": row.get("repair_longest", 0),
            "beside never": f"{row['beside_never']:+.1%}",
            "complaints": ", ".join(row.get("complaints", {}))[:70],
        }
        for name, row in ordered
    ]
    _print(title, lines)


def print_rates(title: str, rates: Mapping[str, Figures]) -> None:
    """Alarms on sets in which nothing drifts."""
    checks = sum(row["checks"] for row in rates.values())
    print()
    for key in ("alarms", "fired", "repairs"):
        count = sum(row[key] for row in rates.values())
        print(f"{title}: {key} in {count} of {checks} checks ({count / checks:.2%})")


def print_faults(title: str, sets: Mapping[str, Figures]) -> None:
    """Faults named at once, by kind and strength."""
    print(f"\n{title}\n{'fault':<20}{'weak':>12}{'medium':>12}{'strong':>12}   named / injected")
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


def print_shifts(title: str, sets: Mapping[str, Figures]) -> None:
    """Windows until each detector finds a shift that was put in."""
    print(f"\n{title}\n{'shift':<12}{'detector':<16}{'found':>10}{'delay, windows':>16}{'false before':>14}")
    keys = dict.fromkeys((s, d) for row in sets.values() for s in row for d in row[s])
    for shift, detector in keys:
        rows = [row[shift][detector] for row in sets.values() if shift in row]
        delays = [row["delay"] for row in rows if row["delay"] is not None]
        mean = f"{np.mean(delays):.1f}" if delays else "–"
        false = sum(row["false_before"] for row in rows) / max(1, sum(row["checks_before"] for row in rows))
        print(f"{shift:<12}{detector:<16}{f'{len(delays)}/{len(rows)}':>10}{mean:>16}{false:>14.1%}")


def print_learned(title: str, sets: Mapping[str, Figures]) -> None:
    """What a mended fault left behind, by kind."""
    found = {name: row for name, row in sets.items() if row}
    lines = []
    for fault in dict.fromkeys(row["fault"] for row in found.values()):
        rows = {name: row for name, row in found.items() if row["fault"] == fault}
        worst = max(rows, key=lambda name: float(rows[name]["harm"]))
        lines.append(
            {
                "fault": fault,
                "sets": len(rows),
                "named at once": sum(row["named_first"] == 0 for row in rows.values()),
                "named": sum(row["named_first"] is not None for row in rows.values()),
                "harm after, mean": f"{np.mean([row['harm'] for row in rows.values()]):+.2%}",
                "largest": f"{rows[worst]['harm']:+.1%}",
                "of always": f"{np.mean([row['harm_of_always'] for row in rows.values()]):+.2%}",
                "largest on": f"{worst} ({rows[worst]['column']})",
            }
        )
    _print(title, lines)


def _print(title: str, lines: list[dict[str, Any]]) -> None:
    """Columns as wide as what is in them, numbers to the right and the first and the last to the left."""
    print(f"\n{title}")
    if not lines:
        return
    names = list(lines[0])
    widths = [max(len(name), *(len(str(line[name])) for line in lines)) for name in names]
    for cells in (names, *([str(line[name]) for name in names] for line in lines)):
        left = {0, len(cells) - 1}
        padded = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        print("  ".join(padded).rstrip())


def _of(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
