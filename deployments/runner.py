"""Executes the scheduled and triggered runs of our deployments: `python -m deployments.runner`. No flow logic.

It registers the definitions, and what changes of them later, and serves every deployment with our tag. When the
server stays away it ends with an error, for the supervisor to start it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from deployments.abandoned import own_runs, take_up
from deployments.automation_config import Reruns
from deployments.register import require_server
from deployments.specification import FLOWS, HEARTBEAT_SECONDS
from deployments.watching import Definitions
from perennial.errors import DefinitionError, PerennialError, ServiceError
from perennial.operate.asking import AwayError, healthy
from perennial.operate.identity import not_of_home
from perennial.operate.prefect.runs import TAG
from perennial.operate.servers import prefect_environment
from perennial.settings import Settings, load_settings
from perennial.surroundings import collect_seldom

if TYPE_CHECKING:
    from prefect.runner import Runner

READY_TEXT = "perennial runner ready"
ALIVE_FILE = "runner.alive"
REFRESH_SECONDS, ABANDONED_SECONDS = 5.0, 30.0
# Longer than the minute for which Prefect's SQLite waits for its lock, and may answer nobody.
LOST_SECONDS = 150.0
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


async def _refresh(runner: Runner, known: set[UUID], alive: Path, definitions: Definitions | None) -> None:
    """Register and serve what is defined or deployed later; `alive` is touched whenever the server answered."""
    import httpx

    looked_at = float("-inf")
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        try:
            if definitions is not None:
                for change in await asyncio.to_thread(definitions.look):
                    print(change.line(), flush=True)
            if count := await _serve_new(runner, known):
                print(f"serving {count} more deployments", flush=True)
            if time.monotonic() - looked_at >= ABANDONED_SECONDS:
                await _take_up_abandoned(definitions.reruns if definitions else Reruns().most)
                looked_at = time.monotonic()
            with contextlib.suppress(OSError):  # an unhealthy container says enough
                alive.touch()
        except PerennialError as error:
            print(f"not registered: {error}", flush=True)
        except httpx.HTTPError as error:  # the runner's own polling decides when the server is lost
            print(f"could not look for new deployments: {error!r}", flush=True)


async def _take_up_abandoned(most: int) -> None:
    from prefect.client.orchestration import get_client

    alive = await asyncio.to_thread(own_runs)
    async with get_client() as client:
        for item in await take_up(client, alive, datetime.now(UTC), most):
            print(item.line(), flush=True)


async def _watch_server(url: str, lost_seconds: float, home: Path | None) -> str:
    """Returns why the server is lost: it has not answered for so long, or another home's has taken its place."""
    last, interrupted = time.monotonic(), False
    while time.monotonic() - last < lost_seconds:
        await asyncio.sleep(lost_seconds / 12)
        if not await asyncio.to_thread(healthy, f"{url.rstrip('/')}/health", 10.0):
            interrupted = True
            continue
        if interrupted and home:  # it was away: who answers now may be another
            try:
                if refuted := await asyncio.to_thread(not_of_home, url, home):
                    return refuted
            except AwayError:
                continue
        last, interrupted = time.monotonic(), False
    return f"the Prefect server at {url} has been away for {lost_seconds:g} s"


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


async def serve(settings: Settings, definitions: Definitions | None = None, lost_seconds: float = LOST_SECONDS) -> None:
    """Serve until SIGTERM.

    Args:
        definitions: Registered anew when they change; by default they are left to others.
        lost_seconds: How long the server may stay away.

    Raises:
        ServiceError: The Prefect server stayed away, or is another home's; the runs in progress are ended.
    """
    from prefect.runner import Runner

    url = require_own_server(settings)
    runner = Runner(name="perennial", pause_on_shutdown=False, heartbeat_seconds=HEARTBEAT_SECONDS)
    known: set[UUID] = set()
    count = await _serve_new(runner, known)
    running = asyncio.create_task(runner.start())
    lost = asyncio.create_task(
        _watch_server(url, lost_seconds, None if settings.prefect_api_url else settings.home_path)
    )
    helpers = [
        lost,
        asyncio.create_task(_announce_and_handle_signals(runner, count)),
        asyncio.create_task(_refresh(runner, known, settings.home_path / ALIVE_FILE, definitions)),
    ]
    try:
        await asyncio.wait([running, lost], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ServiceError(lost.result(), "Start it again: perennial up")
        running.result()
    finally:
        for task in [running, *helpers]:
            task.cancel()
        await asyncio.wait([running, *helpers], timeout=_END_SECONDS)


def require_own_server(settings: Settings) -> str:
    """The address of this process's Prefect server, which was given, or proves to be this home's.

    Raises:
        ServiceError: None answers, or another home's.
    """
    url = require_server()
    # One that was given may be shared by many homes.
    if settings.prefect_api_url is None and (refuted := not_of_home(url, settings.home_path, LOST_SECONDS)):
        raise ServiceError(refuted, "Set PERENNIAL_PREFECT_PORT to a free port, then: perennial up")
    return url


def _keep_temporary_files_in(folder: Path) -> None:
    """Prefect's runner makes a folder of one fixed name among the temporary files, and it would be its first user's.

    Only here: what the runs' own processes need is nameless, and may be larger than what the home has room for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)


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
        _keep_temporary_files_in(settings.home_path / "prefect" / "runner")
        definitions = Definitions(settings, flows)
        require_own_server(settings)
        for change in definitions.register():
            print(change.line(), flush=True)
        asyncio.run(serve(settings, definitions))
    except PerennialError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    collect_seldom()
    sys.exit(main())
