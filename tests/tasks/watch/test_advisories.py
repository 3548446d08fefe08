"""A vulnerable pin is found by each form of advisory, a sound one by none; what has no form is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from perennial.errors import DataError
from tasks.watch.advisories import weaknesses

LOCKED = {"Pillow": "9.5.0", "numpy": "2.2.0"}
RECORD: dict[str, Any] = {
    "id": "PYSEC-2023-175", "aliases": ["CVE-2023-4863"], "summary": "libwebp overflow",
    "affected": [{
        "package": {"ecosystem": "PyPI", "name": "pillow"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "10.0.1"}]}],
    }],
}  # fmt: skip
AUDIT = {
    "dependencies": [
        {"name": "pillow", "version": "9.5.0", "vulns": [
            {"id": "PYSEC-2023-175", "fix_versions": ["10.0.1"], "aliases": ["CVE-2023-4863"], "description": "webp"}]},
        {"name": "numpy", "skip_reason": "not found"},
    ],
    "fixes": [],
}  # fmt: skip


@pytest.mark.parametrize("document", [RECORD, [RECORD], {"vulns": [RECORD, RECORD]}, AUDIT])
def test_a_vulnerable_pin_is_found_once(document: Any) -> None:
    (found,) = weaknesses(LOCKED, document, "x.json")
    assert (found.package, found.version, found.id, found.fixed) == ("pillow", "9.5.0", "PYSEC-2023-175", ("10.0.1",))
    assert found.aliases == ("CVE-2023-4863",)


@pytest.mark.parametrize("document", [RECORD, AUDIT])
def test_a_sound_pin_is_not(document: Any) -> None:
    assert weaknesses({"pillow": "10.0.1"}, document, "x.json") == []


def test_others_ecosystems_and_withdrawn_records_say_nothing() -> None:
    affected = RECORD["affected"][0]
    npm = RECORD | {"affected": [affected | {"package": {"ecosystem": "npm", "name": "pillow"}}]}
    assert weaknesses(LOCKED, [npm, RECORD | {"withdrawn": "2024-01-01T00:00:00Z"}], "x.json") == []


@given(st.integers(0, 20), st.integers(0, 10), st.integers(1, 10), st.booleans())
def test_a_range_holds_what_lies_in_it(at: int, start: int, length: int, last: bool) -> None:
    end = {"last_affected": f"{start + length}.0"} if last else {"fixed": f"{start + length}.0"}
    events = [end, {"introduced": f"{start}.0" if start else "0"}]  # in whatever order
    ranges = [{"type": "ECOSYSTEM", "events": events}]
    record = RECORD | {"affected": [RECORD["affected"][0] | {"ranges": ranges}]}
    wanted = start <= at <= start + length if last else start <= at < start + length
    found = weaknesses({"pillow": f"{at}.0"}, record, "x.json")
    assert bool(found) == wanted
    if found and not last:
        assert [Version(item) for item in found[0].fixed] == [Version(f"{start + length}.0")]


def test_listed_versions_count_without_a_range() -> None:
    record = RECORD | {"affected": [{"package": {"ecosystem": "PyPI", "name": "pillow"}, "versions": ["9.5.0"]}]}
    assert len(weaknesses(LOCKED, record, "x.json")) == 1


@pytest.mark.parametrize("wrong", [{}, {"vulns": 3}, [1], "text", {"dependencies": [{}]}])
def test_what_has_no_form_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"x\.json has no form of advisories that is known.*Give OSV's JSON"):
        weaknesses(LOCKED, wrong, "x.json")
