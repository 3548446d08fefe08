"""How commands run flows: against this home's Prefect server, quietly, with times as people write them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perennial.commands.progress import Progress

if TYPE_CHECKING:
    from perennial.state.registry import Reign


class Moment(click.ParamType[datetime]):
    """An ISO 8601 date or time; UTC where it names no zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no ISO 8601 time, such as 2026-01-31 or 2026-01-31T06:00:00Z", param, ctx)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


as_of_option: Callable[[Any], Any] = click.option(
    "--as-of", type=Moment(), help="The moment to act at, ISO 8601; only what was known then is used. Default: now."
)
json_option: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def announce(model: str, reign: Reign) -> None:
    """Tell whoever listens on the running Prefect server of a new champion; where none runs, nobody listens."""
    from perennial.events import model_resource, reign_event, reign_payload
    from perennial.operate.identity import running_prefect
    from perennial.operate.servers import use_prefect
    from perennial.settings import load_settings

    settings = load_settings()
    if (url := running_prefect(settings)) is None:
        return
    with use_prefect(settings, url):
        from prefect.events import emit_event

        resource = {"prefect.resource.id": model_resource(model), "prefect.resource.name": model}
        emit_event(event=reign_event(reign), resource=resource, payload=reign_payload(model, reign))


def require_files(paths: Iterable[Path]) -> None:
    """Refuse files that are not there before anything large is imported.

    Raises:
        DataError: The first one is named.
    """
    from perennial.errors import DataError

    for path in paths:
        if not path.exists():
            raise DataError(f"{path.absolute()} does not exist", "Check the path")


@contextmanager
def flow_environment(*, verbose: bool = False) -> Iterator[None]:
    """Run flows within: on the running server, or on one that lives as long as the block."""
    from perennial.operate.asking import ANSWER_SECONDS
    from perennial.operate.identity import prefect_claim
    from perennial.operate.servers import prefect_server
    from perennial.settings import load_settings

    if not verbose:  # a failing flow must give one line on stderr, not Prefect's traceback as well
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    settings = load_settings()
    claim = prefect_claim(settings, ANSWER_SECONDS)
    if claim.busy:
        click.echo(f"waiting for the Prefect server at {claim.url}, which is busy", err=True)
    if claim.foreign:
        click.echo(f"warning: {claim.refuted}", err=True)
    if claim.url is None or (claim.refuted and not claim.busy and not settings.prefect_api_url):
        click.echo("starting a Prefect server for this command; `perennial up` keeps one running", err=True)
    with prefect_server(settings), Progress() as progress:
        from flows.recording import watched_by

        with watched_by(progress):
            yield
