"""Which versions may go: hypothesis looks for one that goes although somebody needs it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.state.registry import Reign, Version
from tasks.upkeep.choice import outdated_versions, protected, read_versions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEPT = timedelta(days=90)


def version(number: int, days_old: float, **tags: str) -> Version:
    made = NOW - timedelta(days=days_old)
    told = {"as_of": made.isoformat(), "data_version": f"batches@{number},labels@{2 * number}#abc", **tags}
    return Version("m", number, f"run{number}", "models:/m-1", {f"perennial.{k}": v for k, v in told.items()}, made)


def reign(sequence: int, number: int) -> Reign:
    return Reign(sequence, number, None, "promote", NOW, NOW, "test", "why", None)


def numbers(found: list[Version]) -> list[int]:
    return [item.number for item in found]


def test_an_old_version_that_never_reigned_goes() -> None:
    versions = [version(1, 400), version(2, 300), version(3, 50), version(4, 1)]
    found = outdated_versions(versions, [reign(1, 1)], {"champion": 1}, kept=KEPT, as_of=NOW)
    assert numbers(found) == [2]


def test_nothing_goes_where_all_is_kept() -> None:
    assert outdated_versions([version(1, 9000), version(2, 1)], [], {}, kept=None, as_of=NOW) == []


def test_a_replay_of_the_past_makes_young_versions() -> None:
    replayed = replace(version(1, 4000), created_at=NOW - timedelta(days=1))
    assert outdated_versions([replayed, version(2, 1)], [], {}, kept=KEPT, as_of=NOW) == []


def test_each_reason_to_stay_is_told() -> None:
    versions = [
        version(1, 400), version(2, 400, approval="pending"), version(3, 400, waiting="for evidence"),
        version(4, 400, pinned="true"), version(5, 400, pinned="false"), version(6, 400),
    ]  # fmt: skip
    assert protected(versions, {"theirs": 1}) == {
        1: "it is @theirs", 2: "it waits for a person", 3: "it waits for evidence", 4: "it is pinned",
        6: "it is the newest",
    }  # fmt: skip


def test_the_model_below_a_kept_map_stays() -> None:
    versions = [version(1, 400), version(2, 400, base_version="1"), version(3, 1)]
    assert numbers(outdated_versions(versions, [reign(1, 2)], {"champion": 2}, kept=KEPT, as_of=NOW)) == []


def test_what_lies_below_a_kept_map_on_a_map_stays() -> None:
    versions = [version(1, 400), version(2, 400, base_version="1"), version(3, 1, base_version="2")]
    assert outdated_versions(versions, [], {}, kept=KEPT, as_of=NOW) == []


def test_tables_stay_readable_for_the_young_and_for_those_in_use() -> None:
    versions = [version(1, 400), version(2, 300), version(3, 10)]
    found = read_versions(versions, {1}, kept=timedelta(days=180), as_of=NOW)
    assert found == {"batches": [1, 3], "labels": [2, 6]}
    everything = read_versions(versions, set(), kept=None, as_of=NOW)
    assert everything == {"batches": [1, 2, 3], "labels": [2, 4, 6]}


SOME = st.integers(1, 6)
VERSIONS = st.lists(
    st.tuples(
        st.floats(0, 400), st.sampled_from(["", "pending", "approved", "refused"]),
        st.sampled_from(["", "for evidence", "settled"]), st.sampled_from(["", "true", "false", "for the audit"]),
        st.sampled_from(["", "1", "2", "3"]),
    ),
    min_size=1, max_size=6,
)  # fmt: skip
ALIASES = st.dictionaries(st.sampled_from(["champion", "previous", "challenger", "theirs"]), SOME)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(VERSIONS, st.lists(SOME, max_size=4), ALIASES)
def test_nothing_goes_that_anybody_needs(
    made: list[tuple[float, str, str, str, str]], reigned: list[int], aliases: dict[str, int]
) -> None:
    versions = [
        version(number, days, approval=approval, waiting=waiting, pinned=pinned, base_version=base)
        for number, (days, approval, waiting, pinned, base) in enumerate(made, 1)
    ]
    history = [reign(index, number) for index, number in enumerate(reigned, 1)]
    found = outdated_versions(versions, history, aliases, kept=KEPT, as_of=NOW)
    gone = set(numbers(found))
    assert not gone & {line.version for line in history}
    assert not gone & set(aliases.values())
    assert versions[-1].number not in gone
    for item in versions:
        if item.number in gone:
            assert item.tag("approval") != "pending"
            assert item.tag("waiting") != "for evidence"
            assert item.tag("pinned") in ("", "false")
            assert item.created_at <= NOW - KEPT
        else:
            assert item.tag("base_version") not in {str(number) for number in gone}
