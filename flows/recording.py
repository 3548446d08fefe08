"""How flows show what they did: step names, artifacts, events, and the clock at the edge. No step, no order of steps.

Prefect runs a flow's file as a script of its own, so nothing here may be a class or an exception.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Completed

from perennial.definition import ModelDefinition
from perennial.errors import ClaimedError
from perennial.events import ALERT, IN_DOUBT, REFUSED, WAITING, model_resource, reign_event, reign_payload
from perennial.state.approval import where_to_answer
from perennial.state.patience import is_away, patiently
from perennial.state.registry import Reign
from perennial.workspace import Workspace
from tasks.alerts.item import Item, Source
from tasks.alerts.telling import look, record

P = ParamSpec("P")
R = TypeVar("R")
_SERVER_SECONDS = 90.0
_watchers: list[Callable[[str], object]] = []


@contextmanager
def watched_by(watcher: Callable[[str], object]) -> Iterator[None]:
    """Whoever runs a flow in this process is told in words what it is at."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def tell(what: str) -> None:
    """What the run is at now, for who waits for it in this process."""
    for watcher in _watchers:
        watcher(what)


def step(name: str, function: Callable[P, R]) -> Callable[P, R]:
    """The function as a Prefect task of this name.

    Nothing is cached: Prefect would hash every frame that is handed on. Results stay in memory.
    """
    made = task(name=name, cache_policy=NO_CACHE, persist_result=False)(function)

    @wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        tell(name.replace("-", " "))
        return made(*arguments, **named)

    return run


def start(name: str, function: Callable[P, R]) -> Callable[P, PrefectFuture[R]]:
    """As `step`, but begun in a thread of its own: what is returned has the `result()` to wait for."""
    made = task(name=name, cache_policy=NO_CACHE, persist_result=False)(function)

    @wraps(function)
    def begin(*arguments: P.args, **named: P.kwargs) -> PrefectFuture[R]:
        tell(name.replace("-", " "))
        return made.submit(*arguments, **named)

    return begin


def moment(as_of: datetime | None) -> datetime:
    """The moment that a run acts at: the given one (naive means UTC), or now."""
    if as_of is None:
        return datetime.now(UTC)
    return as_of.astimezone(UTC) if as_of.tzinfo else as_of.replace(tzinfo=UTC)


def publish_markdown(name: str, model: str, text: str, description: str) -> None:
    """A report for people on the run's page, and the newest of its name for the model."""
    _show(lambda: create_markdown_artifact(text, key=_key(name, model), description=description))


def publish_table(name: str, model: str, rows: list[dict[Any, Any]], description: str) -> None:
    _show(lambda: create_table_artifact(rows, key=_key(name, model), description=description))


def _show(publish: Callable[[], object]) -> None:
    """Publish, waiting for a server that restarts. A page that can't be shown fails no run: all of it is recorded."""
    try:
        patiently(publish, _SERVER_SECONDS)
    except Exception as error:
        if not is_away(error):
            raise
        get_run_logger().warning("an artifact was not published: %s", type(error).__name__)


def title_run(text: str, *tags: str) -> None:
    """Name the run by what it did, and tag it, so that Prefect's list tells runs apart; best effort."""
    identity = flow_run.get_id()
    if identity is None:
        return
    known = set(flow_run.get_tags() or ())

    def rename() -> None:
        from prefect import get_client

        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(identity), name=text[:250], tags=sorted({*known, *tags}))

    _show(rename)


def gate_title(kind: str, model: str, version: int, verdict: str, *, promoted: bool, waits: bool) -> tuple[str, str]:
    """A training's run as a sentence, and the tag of how it ended."""
    if promoted:
        return f"{kind} {model} v{version}: promoted", "promoted"
    if waits:
        return f"{kind} {model} v{version}: waits for a person", "waits-for-a-person"
    if verdict == "wait":
        return f"{kind} {model} v{version}: waits for evidence", "waits-for-evidence"
    return f"{kind} {model} v{version}: kept out, {verdict}", "kept-out"


def page_of(workspace: Workspace, path: str) -> str:
    """For an artifact: where the page shows more."""
    settings = workspace.settings
    return f"\n\n[On the page](http://{settings.host}:{settings.web_port}{path})\n"


def tell_waiting(workspace: Workspace, definition: ModelDefinition, number: int) -> bool:
    """Whether a version waits for a person; if it does, the run's page says where to answer."""
    version = workspace.registry.version(definition.name, number)
    if version.tag("approval") != "pending":
        return False
    told = where_to_answer(version, definition.gate.approval_expires)
    text = f"# {definition.name}: waits for a person\n\n{told}\n"
    text += page_of(workspace, f"/models/{definition.name}/versions/{number}")
    publish_markdown("approval", definition.name, text, told[:250])
    return True


def announce_reign(model: str, reign: Reign) -> None:
    """Tell of a change of champion; a run that is run again tells it again, under the same sequence."""
    announce(reign_event(reign), model, reign_payload(model, reign))


def announce(event: str, model: str, payload: dict[str, Any]) -> None:
    """Tell whoever listens, best effort: what counts is in the tables already."""
    emit_event(
        event=event,
        resource={"prefect.resource.id": model_resource(model), "prefect.resource.name": model},
        payload=payload,
    )


def tell_people(
    workspace: Workspace, definition: ModelDefinition, items: Sequence[Item], *, source: Source, at: datetime,
    footer: Sequence[str], decision_id: str = "",
) -> dict[str, Any] | None:  # fmt: skip
    """Tell in one message what is new of what stands against a model; None where nothing is to be said.

    Sent first, then recorded: a run that dies in between tells it twice, never not at all.
    """
    if definition.alerts is None:
        return None
    model = definition.name
    found = look(workspace.store, model, items, definition.alerts, source=source, at=at, decision_id=decision_id)
    payload = None
    if found.message is not None:
        link = str(flow_run.get_flow_run_ui_url() or "")
        payload = found.payload([*footer, *([link] if link else [])], link)
        announce(ALERT, model, payload)
    record(workspace.store, found, payload)
    return payload


def announce_gate(
    model: str, version: int, verdict: str, reasons: tuple[str, ...], reign: Reign | None, *, waits: bool
) -> None:
    """Tell what a gate's verdict led to: a new champion, a version that waits for a person or for evidence, or none."""
    if reign is not None:
        announce_reign(model, reign)
        return
    reason = reasons[0] if reasons else verdict
    doubt = verdict == "wait"
    what = "waits for evidence" if doubt else "waits for a person" if waits else "was kept out by the gate"
    payload = {
        "model": model, "version": version, "reason": reason, "subject": f"{model}: version {version} {what}",
        "text": f"Version {version} of {model} {what}: {reason}.",
    }  # fmt: skip
    announce(IN_DOUBT if doubt else WAITING if waits else REFUSED, model, payload)


def run_is_alive(run_id: str) -> bool:
    """Whether a flow run may still be at work: not in a final state, and known to the server."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound

    def read() -> Any:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(UUID(run_id)).state

    try:
        state = patiently(read, _SERVER_SECONDS)
    except (ObjectNotFound, ValueError):
        return False
    return state is not None and not state.is_final()


def nothing_to_do(error: ClaimedError) -> dict[str, Any]:
    """How a run ends whose decision is another run's: told to whoever called it; no failure where a server started it.

    An event may come twice, or late: people would be told of a failure that is none.
    """
    if deployment.get_id() is None:
        raise error
    # What a flow returns as a state, Prefect ends the run with.
    return cast("dict[str, Any]", Completed(name="Skipped", message=str(error)))


def inline_image(figure: Any, alternative: str) -> str:
    """A matplotlib figure as a markdown image that needs no server."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return f"![{alternative}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"


def _key(name: str, model: str) -> str:
    """Prefect's keys are lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9-]+", "-", f"{name}-{model}".lower())
