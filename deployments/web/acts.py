"""What a person can do from a page: each is the command of that name in a process of its own, or a run of Prefect's.

So a page refuses with the command's own words, and there is no second way of doing anything. Every act, done or
refused, is noted in the ledger with author and reason.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deployments.web.known.neighbours import Neighbours
from deployments.web.settings import Role
from perennial.errors import DataError, NotFoundError, PerennialError
from perennial.settings import Settings
from perennial.surroundings import child_environment, python_command
from perennial.workspace import Workspace

SECONDS = 180.0
_log = logging.getLogger("perennial.web")
_MOST_TEXT = 2000
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_NAME = re.compile(r"[0-9a-f-]{4,40}")


@dataclass(frozen=True)
class Done:
    """What came of an act: whether it was done, and the command's own words."""

    done: bool
    told: str


@dataclass(frozen=True)
class Act:
    """One thing that a person can do to a model.

    Attributes:
        verb: What the button says.
        arguments: The command's arguments for a form's values; None where it is a run of Prefect's.
        flow: The flow whose deployment is run; empty where it is a command.
        parameters: The run's parameters for a form's values.
        role: Who may.
    """

    verb: str
    arguments: Callable[[Mapping[str, str]], list[str]] | None = None
    flow: str = ""
    parameters: Callable[[Mapping[str, str]], dict[str, Any]] = lambda _: {}
    role: Role = "approve"


def _version(form: Mapping[str, str]) -> str:
    return f"--version={_matching(form, 'version', _NUMBER)}"


def _chosen(form: Mapping[str, str]) -> list[str]:
    """Which entries of the quarantine a form means: one, those of a rule, or all."""
    if form.get("entry"):
        return [f"--entry={_matching(form, 'entry', _NAME)}"]
    if form.get("rule"):
        return [f"--rule={_plain('the rule', form['rule'])}"]
    return []


def _discard(form: Mapping[str, str]) -> list[str]:
    return ["quarantine", "discard", *(_chosen(form) or ["--all"])]


ACTS: Mapping[str, Act] = {
    "approve": Act("Approve", lambda form: ["approve", _version(form)]),
    "refuse": Act("Refuse", lambda form: ["refuse", _version(form)]),
    "rollback": Act("Roll back", lambda form: ["rollback", f"--to={_matching(form, 'version', _NUMBER)}"]),
    "accept": Act("Accept the data", lambda form: ["accept", _matching(form, "decision", _NAME)]),
    "release": Act("Release", lambda form: ["quarantine", "release", *_chosen(form)]),
    "discard": Act("Discard", _discard),
    "check": Act("Start a check", flow="monitor"),
    "retrain": Act("Start a retraining", flow="retrain"),
    "recalibrate": Act("Start a recalibration", flow="recalibrate"),
    "backtest": Act("Start a backtest", flow="backtest"),
}


class Actor:
    """Carries acts out, and writes down who did them and why."""

    def __init__(self, workspace: Workspace, neighbours: Neighbours, clock: Callable[[], datetime]) -> None:
        self._workspace, self._neighbours, self._clock = workspace, neighbours, clock
        self._comparing = asyncio.Semaphore(1)  # each scores thousands of rows with two models

    async def act(self, name: str, model: str, form: Mapping[str, str], *, by: str) -> Done:
        """Do it, or be refused.

        Raises:
            NotFoundError: There is no such act or model.
            DataError: The author or the reason is empty or too long, or a value of the form is malformed.
        """
        if name not in ACTS:
            raise NotFoundError(f"there is no act {name!r}", f"Known are: {', '.join(ACTS)}")
        self._workspace.definition(model)
        act, reason = ACTS[name], _text(form, "reason")
        by = _plain("your name", by)
        if act.arguments is not None:
            done = await self._command(model, act.arguments(form), by=by, reason=reason)
        else:
            done = await asyncio.to_thread(self._start, act, model, form, by)
        note = {"act": name, "reason": reason, "told": done.told, "done": done.done, "what": _what(form)}
        try:
            await asyncio.to_thread(self._workspace.ledger(model).note, note, by=by, at=self._clock())
        except PerennialError as error:
            return Done(done.done, f"{done.told}. But it could not be noted in the ledger: {error}")
        return done

    async def compare(self, model: str, left: int, right: int) -> Done:
        """Let `perennial compare` set two versions side by side; it changes nothing, so nothing is noted."""
        self._workspace.definition(model)
        async with self._comparing:
            return await self._run("compare", "--", model, str(left), str(right))

    async def _command(self, model: str, arguments: Sequence[str], *, by: str, reason: str) -> Done:
        command, *rest = arguments
        action = [rest.pop(0)] if command == "quarantine" else []
        positional = [part for part in rest if not part.startswith("--")]
        options = [part for part in rest if part.startswith("--")]
        return await self._run(command, *options, f"--by={by}", f"--reason={reason}", "--", model, *action, *positional)

    async def _run(self, *arguments: str) -> Done:
        """Run a command; what it says on stdout, or its error."""
        child = await asyncio.create_subprocess_exec(
            *python_command("perennial.cli", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment_of(self._workspace.settings),
        )
        try:
            out, err = await asyncio.wait_for(child.communicate(), SECONDS)
        except TimeoutError:
            child.kill()
            await child.wait()
            return Done(False, f"it took longer than {SECONDS:g} s and was ended; look at what it has done before")
        if child.returncode == 0:
            return Done(True, out.decode("utf-8", "replace").strip())
        told = err.decode("utf-8", "replace")
        lines = [text for text in told.splitlines() if text.startswith("error: ")]
        if not lines:
            _log.error("`perennial %s` failed: %s", arguments[0], told)
            return Done(False, "the command failed; why is in logs/web.log of the home")
        return Done(False, lines[-1].removeprefix("error: "))

    def _start(self, act: Act, model: str, form: Mapping[str, str], by: str) -> Done:
        try:
            tags = [f"started by {by}"[:80]]
            run = self._neighbours.prefect.start(act.flow, model, act.parameters(form) | {"model": model}, tags=tags)
        except PerennialError as error:
            return Done(False, str(error))
        return Done(True, f"a run of {act.flow}/{model} was started ({run})")


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of a command's process: the same home and settings, and this code."""
    given = {f"PERENNIAL_{name.upper()}": value for name, value in settings.model_dump().items()}
    return child_environment(
        {
            **{name: str(value) for name, value in given.items() if value not in (None, "")},
            "PERENNIAL_HOME": str(settings.home_path),
        }
    )


def _matching(form: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> str:
    value = form.get(name, "")
    if not pattern.fullmatch(value):
        raise DataError(f"{name} = {value[:80]!r} is none", "Go back to the page and use its button")
    return value


def _text(form: Mapping[str, str], name: str) -> str:
    return _plain(f"the {name}", form.get(name, ""))


def _plain(name: str, value: str) -> str:
    """A text of a person's, on one line."""
    text = " ".join(value.split())
    if not text.isprintable():
        raise DataError(f"{name} has a letter that can't be shown", "Use letters, digits and signs")
    if not text:
        raise DataError(f"{name} is empty", "Say who you are, and why: both are kept")
    if len(text) > _MOST_TEXT:
        raise DataError(f"{name} has {len(text)} letters", f"Use at most {_MOST_TEXT}")
    return text


def _what(form: Mapping[str, str]) -> dict[str, str]:
    return {name: form[name] for name in ("version", "decision", "entry", "rule") if form.get(name)}
