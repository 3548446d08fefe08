"""Fixtures for all tests: one real Prefect server a session, started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from perennial.servers import prefect_server
from perennial.settings import Settings


@pytest.fixture(scope="session")
def prefect_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The settings of the session's Prefect server."""
    return Settings(home=tmp_path_factory.mktemp("prefect") / "home")


@pytest.fixture(scope="session")
def prefect_url(prefect_settings: Settings) -> Iterator[str]:
    """The /api address of a real Prefect server, which this process uses as long as the tests run."""
    with prefect_server(prefect_settings, scheduler=True) as url:
        yield url
