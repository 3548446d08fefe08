"""Runs a retraining and kills its own process with SIGKILL inside or right after one step. Not a test module.

    python crash_driver.py STEP WHEN HOW HOME MODELS EXPECTATIONS AS_OF [DECISION]

STEP is one of search, train, judge_challenger, register, promote; WHEN is before, inside or after; HOW is flow or
steps. Without a kill (STEP none) it goes through and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "worlds"), str(Path(__file__).parents[2])]


def die(*_arguments: Any, **_more: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **more: Any) -> Any:
        function(*arguments, **more)
        die()

    return run


def prepare_to_die(step: str, when: str) -> None:
    """Wrap the step, or a part of it, in a process that goes on to run it."""
    from perennial.state import registry
    from tasks.steps import register as registration
    from tasks.steps import retrain as retraining

    inside: dict[str, tuple[Any, str]] = {
        # After the first trial is in the journal; after logging, before the version; after the history's line.
        "search": (retraining, "tune"),
        "train": (retraining, "fit"),
        "judge_challenger": (retraining, "judge"),
        "register": (registry.Registry, "register"),
        "promote": (registry.Registry, "settle"),
    }
    owner, name = (retraining, step) if step != "register" else (registration, "register_training")
    if when == "inside":
        owner, name = inside[step]
        setattr(owner, name, die)
    else:
        setattr(owner, name, dying(getattr(owner, name)))


def main() -> None:
    step, when, how, home, models, expectations, at, *decision = sys.argv[1:]
    os.environ.update(PERENNIAL_HOME=home, PERENNIAL_MODELS=models, PERENNIAL_EXPECTATIONS=expectations)
    if step != "none":
        prepare_to_die(step, when)
    as_of = datetime.fromisoformat(at)
    if how == "flow":
        from flows.retrain import retrain

        print(json.dumps(retrain("digits", as_of=as_of, decision_id=decision[0] if decision else None)))
        return
    import small_model

    from perennial.workspace import open_workspace

    workspace = open_workspace()
    made = small_model.retrain(workspace, workspace.definition("digits"), as_of=as_of)
    print(json.dumps({"version": made.version.number}))


if __name__ == "__main__":
    main()
