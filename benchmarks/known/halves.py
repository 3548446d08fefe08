"""Which sets defaults are chosen on, and which they are only reported on. No figure of any set is read here.

The seven sets that the first defaults were chosen on can't be held out any more. The others are dealt out by the
sha256 of their names, per kind, so that both halves have alike many of each kind; a world's twin is in the other half,
and a set made of another one's rows follows that one.
The result is fixed in `halves.json`; a set that is not in it was never looked at, and counts as held out. Sets that
were made when all defaults stood are in no half: they are `later`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from known.later import LATER_SETS

CHOSEN, HELD_OUT, LATER = "chosen-on", "held-out", "later"
USED_BEFORE = ("flights", "elec2", "bike", "pm25", "taxi", "employment", "spam")
SAME_ROWS = {"kangaroo": "rodents", "downturn": "volatility", "matches": "football", "force_kinds": "force"}
FILE = Path(__file__).with_name("halves.json")


def half_of(name: str) -> str:
    """`chosen-on`, `held-out` or `later`."""
    if name in {known.name for known in LATER_SETS}:
        return LATER
    halves: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8"))
    return CHOSEN if name in halves[CHOSEN] else HELD_OUT


def deal(kinds: dict[str, str]) -> dict[str, list[str]]:
    """Both halves of the named sets.

    Args:
        kinds: Each set's kind by its name; a world's is its own kind.
    """
    halves: dict[str, list[str]] = {CHOSEN: [name for name in kinds if name in USED_BEFORE], HELD_OUT: []}
    leading = {name: kind for name, kind in kinds.items() if name not in SAME_ROWS}
    for kind in dict.fromkeys(leading.values()):
        names = [name for name, its in leading.items() if its == kind]
        free = sorted((n for n in names if n not in USED_BEFORE), key=lambda n: hashlib.sha256(n.encode()).hexdigest())
        chosen = max(0, len(names) // 2 - (len(names) - len(free)))
        halves[CHOSEN] += free[:chosen]
        halves[HELD_OUT] += free[chosen:]
    for name in kinds.keys() - leading.keys():
        halves[CHOSEN if SAME_ROWS[name] in halves[CHOSEN] else HELD_OUT].append(name)
    return {half: sorted(names) for half, names in halves.items()}
