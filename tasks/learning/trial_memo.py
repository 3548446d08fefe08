"""The trials of a search that ended, kept so that a killed search goes on: an Optuna journal. No search is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasks.learning.trials import Evaluation, Parameters


class TrialMemo:
    """The trials that ended, in an Optuna journal: each is added whole, by one append of one line."""

    def __init__(self, path: Path, study_name: str, direction: Literal["minimize", "maximize"]) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _journal_lock(path)
        lock.acquire()
        try:
            _drop_torn_line(path)
        finally:
            lock.release()
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        self._study = optuna.create_study(
            study_name=study_name, storage=storage, direction=direction, load_if_exists=True
        )
        self._known: dict[tuple[int, str], Evaluation] = {}
        self.elapsed = 0.0
        for trial in self._study.get_trials(deepcopy=False):
            notes = trial.user_attrs
            key = (notes["number"], notes["parameters"])
            self._known.setdefault(key, Evaluation(trial.value, notes["seconds"], notes["error"]))
            self.elapsed = max(self.elapsed, notes["elapsed"])

    def get(self, number: int, parameters: Parameters) -> Evaluation | None:
        return self._known.get((number, canonical(parameters)))

    def put(self, number: int, trial: Any, parameters: Parameters, evaluation: Evaluation, elapsed: float) -> None:
        from optuna.trial import TrialState, create_trial

        complete = evaluation.value is not None
        notes = {
            "number": number,
            "parameters": canonical(parameters),
            "seconds": evaluation.seconds,
            "error": evaluation.error,
            "elapsed": elapsed,
        }
        self._study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.FAIL,
                value=evaluation.value,
                params=trial.params if trial else {},
                distributions=trial.distributions if trial else {},
                user_attrs=notes,
            )
        )


def canonical(value: Any) -> str:
    """One text for equal values, whichever order their keys came in."""
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: object) -> Any:
    return value.item() if isinstance(value, np.generic) else repr(value)


def _journal_lock(path: Path) -> Any:
    """A lock that the system frees when its holder is killed; Optuna's own is then waited for half a minute."""
    from filelock import FileLock
    from optuna.storages.journal import JournalFileOpenLock

    class Lock(JournalFileOpenLock):
        def __init__(self) -> None:
            self._lock = FileLock(f"{path}.lock")

        def acquire(self) -> bool:
            self._lock.acquire()
            return True

        def release(self) -> None:
            self._lock.release()

    return Lock()


def _drop_torn_line(path: Path) -> None:
    """Cut off an unfinished last line, to which the next append would otherwise be glued."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
