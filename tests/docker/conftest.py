"""The images' tests use the API's small world of models, and leave no image without a name behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "worlds"))


@pytest.fixture(scope="session")
def tidy() -> Iterator[None]:
    """Afterwards only images with names are there that were not before; they make the next time quicker."""
    import engine

    before = engine.nameless()
    yield
    engine.remove_nameless(before)
