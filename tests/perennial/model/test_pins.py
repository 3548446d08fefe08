"""The serving lock that versions carry, and how a process that trains differs from it."""

from __future__ import annotations

from importlib.metadata import version

from perennial.model import pins


def test_markers_choose_what_is_installed_here() -> None:
    lock = (
        "numpy==1.2.3 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n"
        "scipy==1.0 ; python_full_version < '3.0' \\\n    --hash=sha256:02\n"
        "scipy==2.0 ; python_full_version >= '3.0' \\\n    --hash=sha256:03\n# a comment\n"
    )
    assert pins.locked(lock) == {"numpy": "1.2.3", "scipy": "2.0"}


def test_differences_name_both_versions() -> None:
    lock = f"numpy=={version('numpy')}\npandas==0.0.1\nno-such-package==1\n"
    assert pins.differences(lock) == [
        "no-such-package none instead of 1",
        f"pandas {version('pandas')} instead of 0.0.1",
    ]


def test_this_environment_is_the_lock_s() -> None:
    assert pins.differences(pins.serving_lock()) == []
    assert pins.facts()[pins.LOCK_TAG] == pins.digest(pins.serving_lock())
