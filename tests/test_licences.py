"""Every installed package may be used as we use it: its licence is on the list, or it was judged by name."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT_ROOT = Path(__file__).resolve().parent.parent
LIST: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "licences.yaml").read_text(encoding="utf-8"))
# How packages that write no SPDX expression name the same licences.
SPELLINGS = {
    r"apache|asl 2": "Apache-2.0",
    r"\bmit\b|mit license|expat": "MIT",
    r"bsd.2|2.clause|simplified bsd": "BSD-2-Clause",
    r"bsd|new bsd|modified bsd": "BSD-3-Clause",
    r"mozilla|mpl": "MPL-2.0",
    r"isc": "ISC",
    r"python software foundation|psf": "PSF-2.0",
    r"unlicense": "Unlicense",
    r"zope": "ZPL-2.1",
    r"hpnd|historical permission": "HPND",
    r"cc0": "CC0-1.0",
}
FORBIDDEN = re.compile(r"\b(?:a|l)?gpl|gnu|sspl|commons clause|business source|proprietary|non-?commercial", re.I)


def stated(distribution: Distribution) -> str:
    """What a package says of its licence: the SPDX expression, else the classifiers, else the first line."""
    metadata = distribution.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    names = [item.rpartition(" :: ")[2] for item in metadata.get_all("Classifier") or [] if item.startswith("License")]
    names = [name for name in names if name != "OSI Approved"]
    return " OR ".join(names) or (str(metadata.get("License") or "").strip().splitlines() or [""])[0][:120]


def is_allowed(text: str) -> bool:
    """Whether one alternative of the expression consists of allowed licences only."""
    if not text:
        return False
    for alternative in re.split(r"\s+or\s+", text.strip("() "), flags=re.I):
        parts = re.split(r"\s+and\s+|;", alternative.strip("() "), flags=re.I)
        if all(_name(part.strip("() ")) in LIST["allowed"] for part in parts):
            return True
    return False


def _name(text: str) -> str:
    if text in LIST["allowed"]:
        return text
    if FORBIDDEN.search(text):
        return text
    return next((name for pattern, name in SPELLINGS.items() if re.search(pattern, text, re.I)), text)


def test_every_installed_package_may_be_used() -> None:
    judged = LIST["judged"]
    found = {item.metadata["Name"].lower(): stated(item) for item in distributions()}
    assert len(found) > 100
    refused = {name: text for name, text in found.items() if not is_allowed(text) and name not in judged}
    refused = {name: text for name, text in refused.items() if name not in LIST["tools"]}
    refused.pop("perennial", None)
    assert refused == {}, "read the licence of each, then list it in tests/licences.yaml, or remove the package"


@pytest.mark.parametrize("lock", ["requirements-worker.lock", "requirements-serving.lock"])
def test_no_tool_is_in_an_image(lock: str) -> None:
    locked = set(re.findall(r"^([\w.-]+)==", (PROJECT_ROOT / lock).read_text(encoding="utf-8"), re.M))
    assert len(locked) > 30
    assert sorted(locked & set(LIST["tools"])) == []


def test_nothing_is_judged_for_nothing() -> None:
    known = {item.metadata["Name"].lower(): stated(item) for item in distributions()}
    assert [name for name in (*LIST["judged"], *LIST["tools"]) if name in known and is_allowed(known[name])] == []


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("MIT", True),
        ("Apache Software License", True),
        ("MIT OR GPL-2.0", True),
        ("MIT AND Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("Business Source License 1.1", False),
        ("", False),
        ("UNKNOWN", False),
    ],
)
def test_what_is_allowed(text: str, allowed: bool) -> None:
    assert is_allowed(text) == allowed
