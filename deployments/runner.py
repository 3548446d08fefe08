"""Executes the scheduled and triggered runs of our deployments: `python -m deployments.runner`. No flow logic.

It registers the definitions, then serves every deployment with our tag, those that `perennial deploy` adds
later too. When the server stays away it ends with an error, for the supervisor to start it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from deployments.automation_config import load_automations
from deployments.register import register, require_server
from deployments.specification import FLOWS, HEARTBEAT_SECONDS, TAG
from perennial.definition import load_definitions
from perennial.errors import DefinitionError, PerennialError, ServiceError
from perennial.operate.servers import healthy, prefect_environment
from perennial.settings import load_settings

if TYPE_CHECKING:
    from prefect.runner import Runner

READY_TEXT = "perennial runner ready"
ALIVE_FILE = "runner.alive"
REFRESH_SECONDS = 5.0
LOST_SECONDS = 60.0
_STARTED_POLL_SECONDS = 0.05
_PAGE = 200
_END_SECONDS = 10.0


async def _serve_new(runner: Runner, known: set[UUID]) -> int:
    """Let the runner serve our deployments that it does not know yet; how many."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
    from prefect.deployments.runner import RunnerDeployment

    class Registered(RunnerDeployment):
        """A deployment that stands on the server: to apply it again would replace its triggers."""

        async def aapply(self, *_args: Any, **_options: Any) -> UUID:
            return identity

    before, offset = len(known), 0
    async with get_client() as client:
        ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
        while page := await client.read_deployments(deployment_filter=ours, limit=_PAGE, offset=offset):
            offset += len(page)
            for item in page:
                if item.id not in known:
                    identity = item.id
                    await runner.aadd_deployment(Registered(name=item.name))
                    known.add(item.id)
    return len(known) - before


async def _refresh(runner: Runner, known: set[UUID], alive: Path) -> None:
    """Serve what is deployed later; `alive` is touched whenever the server answered, for health checks."""
    import httpx

    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        try:
            if count := await _serve_new(runner, known):
                print(f"serving {count} more deployments", flush=True)
            with contextlib.suppress(OSError):  # an unhealthy container says enough
                alive.touch()
        except httpx.HTTPError as error:  # the runner's own polling decides when the server is lost
            print(f"could not look for new deployments: {error!r}", flush=True)


async def _watch_server(url: str, lost_seconds: float) -> None:
    """Returns when the server has not answered for so long; Prefect's own retries take minutes to give up."""
    last = time.monotonic()
    while time.monotonic() - last < lost_seconds:
        await asyncio.sleep(lost_seconds / 12)
        if await asyncio.to_thread(healthy, f"{url.rstrip('/')}/health", 10.0):
            last = time.monotonic()


async def _announce_and_handle_signals(runner: Runner, count: int) -> None:
    """Once it runs: our own handlers, since Prefect's SIGTERM handler leaves runs in the state Running."""
    while not runner.started:
        await asyncio.sleep(_STARTED_POLL_SECONDS)
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        if not stopping:
            print("stopping: cancelling the runs in progress", flush=True)
            stopping.append(loop.create_task(runner.astop()))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    print(f"{READY_TEXT}: {count} deployments", flush=True)


async def serve(lost_seconds: float = LOST_SECONDS) -> None:
    """Serve until SIGTERM.

    Args:
        lost_seconds: How long the server may stay away.

    Raises:
        ServiceError: The Prefect server stayed away; the runs in progress are ended.
    """
    from prefect.runner import Runner

    url = require_server()
    runner = Runner(name="perennial", pause_on_shutdown=False, heartbeat_seconds=HEARTBEAT_SECONDS)
    known: set[UUID] = set()
    count = await _serve_new(runner, known)
    running = asyncio.create_task(runner.start())
    lost = asyncio.create_task(_watch_server(url, lost_seconds))
    helpers = [
        lost,
        asyncio.create_task(_announce_and_handle_signals(runner, count)),
        asyncio.create_task(_refresh(runner, known, load_settings().home_path / ALIVE_FILE)),
    ]
    try:
        await asyncio.wait([running, lost], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ServiceError(f"the Prefect server at {url} has been away for {lost_seconds:g} s", "Start it again")
        running.result()
    finally:
        for task in [running, *helpers]:
            task.cancel()
        await asyncio.wait([running, *helpers], timeout=_END_SECONDS)


def main(flows: Mapping[str, str] = FLOWS) -> int:
    """Register, serve; the exit code.

    Args:
        flows: As `deployments.register.register` takes them.
    """
    settings = load_settings()
    for name, value in prefect_environment(settings).items():
        os.environ.setdefault(name, value)
    try:
        if settings.pool:
            raise DefinitionError(
                f"PERENNIAL_POOL = {settings.pool!r}: the pool's workers execute the runs, not this runner",
                f"Start one: prefect worker start --pool {settings.pool}; or unset PERENNIAL_POOL",
            )
        definitions = load_definitions(settings.model_folders)
        automations = load_automations(settings.model_folders, definitions)
        for change in register(definitions, flows, automations=automations):
            if change.action != "unchanged":
                print(change.line(), flush=True)
        asyncio.run(serve())
    except PerennialError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
