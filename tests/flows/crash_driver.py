"""Runs retrainings in processes that kill themselves with SIGKILL inside or right after one step. Not a test module.

Started once, it imports everything; each line of its input, a JSON list, is one retraining in a forked process:

    [OUT, ERR, STEP, WHEN, HOW, HOME, MODELS, EXPECTATIONS, AS_OF] and, for a flow, DECISION

It answers each with the process's exit code, negative for a signal, and "ready" before the first. STEP is one of
search, train, judge_challenger, register, promote; WHEN is inside or after; HOW is flow or steps. Without a kill
(STEP none) it goes through and prints into OUT what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

sys.path[:0] = [str(Path(__file__).parents[1] / "worlds"), str(Path(__file__).parents[2])]

import lean_processes  # noqa: E402, F401 - before all that imports NumPy

from perennial.warm import end, warm_up  # noqa: E402


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
    from tasks.steps import retrain as retraining

    inside: dict[str, tuple[Any, str]] = {
        # After the first trial is in the journal; after logging, before the version; after the history's line.
        "search": (retraining, "tune"),
        "train": (retraining, "fit"),
        "judge_challenger": (retraining, "judge"),
        "register": (registry.Registry, "register"),
        "promote": (registry.Registry, "settle"),
    }
    owner, name = (retraining, step) if step != "register" else (sys.modules["flows.retrain"], "register_training")
    if when == "inside":
        owner, name = inside[step]
        setattr(owner, name, die)
    else:
        setattr(owner, name, dying(getattr(owner, name)))


def drive(step: str, when: str, how: str, home: str, models: str, expectations: str, at: str, *decision: str) -> None:
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


def become(out: str, err: str, *arguments: str) -> NoReturn:
    """In the fork: run, and end as a process of its own would."""
    for number, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), number)
    status = 0
    try:
        drive(*arguments)
    except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody caught
        traceback.print_exc()
        status = 1
    end(status)


def main() -> None:
    import small_model  # noqa: F401

    warm_up()
    print("ready", flush=True)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            become(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
