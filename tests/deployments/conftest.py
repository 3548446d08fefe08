"""A folder of tiny flows on sys.path, and a client of a server on which nothing of ours is registered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_world import MODULE, TINY, TINY_FLOWS, Receiver, receiving

from deployments.register import register, registered


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / f"{MODULE}.py").write_text(TINY)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop(MODULE, None)


@pytest.fixture
def client(prefect_url: str, tiny_folder: Path) -> Iterator[Any]:
    """A client of a server on which nothing of ours is registered."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        register({}, TINY_FLOWS)
        assert registered(client) == {}
        yield client
        register({}, TINY_FLOWS)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found
