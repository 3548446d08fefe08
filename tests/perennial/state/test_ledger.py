"""The ledger: a decision once, at most one living holder of it, and nothing of the future in a look at the past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from processes import FORKS

from perennial.errors import ConflictError, NotFoundError
from perennial.state.ledger import Claim, Ledger
from perennial.state.store import Store

T = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def ledger(tables_root: str) -> Ledger:
    return Ledger(Store(tables_root), "m")


def decision(name: str, at: datetime = T, verdict: str = "retrain") -> dict[str, Any]:
    return {"decision_id": name, "as_of": at.isoformat(), "verdict": verdict, "reasons": ["grown"], "kind": "decision"}


def outcome(name: str | None, at: datetime = T) -> dict[str, Any]:
    return {"decision_id": name, "as_of": at.isoformat(), "gate_verdict": "keep", "kind": "outcome"}


def alive(_run: str) -> bool:
    return True


def dead(_run: str) -> bool:
    return False


def race(barrier: Any, number: int, root: str, results: Any) -> None:
    ledger = Ledger(Store(root), "m")
    barrier.wait(60)
    try:
        claim = ledger.claim("d", f"run-{number}", as_of=T, recorded_at=T, is_alive=alive)
        results.put((number, claim.attempt))
    except ConflictError as error:
        results.put((number, str(error)))


def test_a_decision_is_recorded_once(ledger: Ledger) -> None:
    assert ledger.record(decision("d"), recorded_at=T)
    assert not ledger.record(decision("d") | {"verdict": "hold"}, recorded_at=T + timedelta(hours=1))
    (entry,) = ledger.entries()
    assert entry["verdict"] == "retrain"
    assert (entry["claims"], entry["claimed_by"], entry["outcome"]) == ([], None, None)


@pytest.mark.process
def test_of_two_racing_processes_one_claims(tmp_path: Path) -> None:
    root = str(tmp_path / "tables")
    ledger = Ledger(Store(root), "m")
    ledger.record(decision("d"), recorded_at=T)
    results, barrier = FORKS.Queue(), FORKS.Barrier(2)
    processes = [FORKS.Process(target=race, args=(barrier, n, root, results)) for n in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    (winner,) = [number for number, result in found.items() if result == 1]
    assert "claimed by" in found[1 - winner]
    assert ledger.entries()[0]["claims"] == [f"run-{winner}"]


def test_a_claim_is_the_same_again_for_its_holder(ledger: Ledger) -> None:
    ledger.record(decision("d"), recorded_at=T)
    for _ in range(2):
        assert ledger.claim("d", "one", as_of=T, recorded_at=T, is_alive=dead) == Claim("d", "one", 1)
    assert ledger.entries()[0]["claims"] == ["one"]


def test_a_living_holder_stays_and_a_dead_one_is_replaced(ledger: Ledger) -> None:
    ledger.record(decision("d"), recorded_at=T)
    ledger.claim("d", "one", as_of=T, recorded_at=T, is_alive=alive)
    with pytest.raises(ConflictError, match=r"decision d is claimed by one. Nothing is to do"):
        ledger.claim("d", "two", as_of=T, recorded_at=T, is_alive=alive)
    asked: list[str] = []

    def died(run: str) -> bool:
        asked.append(run)
        return False

    assert ledger.claim("d", "two", as_of=T, recorded_at=T, is_alive=died) == Claim("d", "two", 2)
    assert asked == ["one"]
    assert ledger.entries()[0]["claims"] == ["one", "two"]
    assert ledger.entries()[0]["claimed_by"] == "two"


def test_the_last_claim_holds_whatever_the_clocks_say(ledger: Ledger) -> None:
    ledger.record(decision("d"), recorded_at=T)
    ledger.claim("d", "one", as_of=T, recorded_at=T, is_alive=dead)
    ledger.claim("d", "two", as_of=T - timedelta(days=1), recorded_at=T - timedelta(hours=1), is_alive=dead)
    assert ledger.entries()[0]["claimed_by"] == "two"
    assert ledger.claim("d", "three", as_of=T, recorded_at=T, is_alive=dead).attempt == 3


def test_what_is_done_is_not_claimed_again(ledger: Ledger) -> None:
    ledger.record(decision("d"), recorded_at=T)
    ledger.claim("d", "one", as_of=T, recorded_at=T, is_alive=alive)
    assert ledger.close(outcome("d"), "one", key="d:training", recorded_at=T)
    assert not ledger.close(outcome("d") | {"gate_verdict": "promote"}, "one", key="d:training", recorded_at=T)
    assert ledger.entries()[0]["outcome"]["gate_verdict"] == "keep"
    with pytest.raises(ConflictError, match=r"decision d was carried out by one. Nothing is to do"):
        ledger.claim("d", "two", as_of=T, recorded_at=T, is_alive=dead)


def test_what_does_not_exist(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match=r"m has no decision d. See `perennial ledger m`"):
        ledger.claim("d", "one", as_of=T, recorded_at=T, is_alive=dead)
    with pytest.raises(NotFoundError, match=r"m has no decision d"):
        ledger.accept({"decision_id": "d", "as_of": T.isoformat(), "by": "ada"}, recorded_at=T)


def test_an_acceptance_once(ledger: Ledger) -> None:
    ledger.record(decision("d", verdict="repair"), recorded_at=T)
    acceptance = {"decision_id": "d", "as_of": T.isoformat(), "by": "ada", "reason": "new unit", "kind": "acceptance"}
    assert ledger.accept(acceptance, recorded_at=T)
    assert not ledger.accept(acceptance | {"by": "bob"}, recorded_at=T)
    assert ledger.entries()[0]["acceptance"]["by"] == "ada"


def test_the_past_knows_nothing_of_the_future(ledger: Ledger) -> None:
    later = T + timedelta(days=1)
    ledger.record(decision("second", later), recorded_at=later)
    ledger.record(decision("first"), recorded_at=later)
    ledger.claim("first", "run", as_of=later, recorded_at=later, is_alive=dead)
    ledger.close(outcome("first", later), "run", key="first:t", recorded_at=later)
    (then,) = ledger.entries(as_of=T)
    assert (then["decision_id"], then["claimed_by"], then["outcome"]) == ("first", None, None)
    assert [entry["decision_id"] for entry in ledger.entries()] == ["first", "second"]
    assert ledger.entries()[0]["claimed_by"] == "run"
    assert ledger.entries(as_of=T - timedelta(seconds=1)) == []


def test_rows_are_what_happened_without_claims(ledger: Ledger) -> None:
    later = T + timedelta(days=1)
    ledger.record(decision("d"), recorded_at=T)
    ledger.claim("d", "run", as_of=T, recorded_at=T, is_alive=dead)
    ledger.close(outcome("d"), "run", key="d:t", recorded_at=T)
    ledger.close(outcome(None, later), "hand", key=":t", recorded_at=later)
    assert [(row["kind"], row["decision_id"]) for row in ledger.rows()] == [
        ("decision", "d"), ("outcome", "d"), ("outcome", None),
    ]  # fmt: skip
    assert len(ledger.rows(as_of=T)) == 2
    assert len(ledger.entries()) == 1


def test_an_empty_ledger(ledger: Ledger) -> None:
    assert ledger.rows() == []
    assert ledger.entries(as_of=T) == []


def test_numbers_that_are_none_are_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match=r"JSON compliant"):
        ledger.record(decision("d") | {"value": float("nan")}, recorded_at=T)
    assert ledger.entries() == []


def test_a_row_is_its_body_whether_or_not_it_was_read_whole(ledger: Ledger) -> None:
    ledger.record(decision("d") | {"champion_version": "3", "signals": [{"name": "drift"}]}, recorded_at=T)
    ledger.close(outcome(None), "run", key="k", recorded_at=T)
    asked, brought = ledger.rows()
    assert (asked["decision_id"], asked["verdict"], asked["champion_version"]) == ("d", "retrain", "3")
    assert asked["signals"] == [{"name": "drift"}]
    assert dict(asked) == decision("d") | {"champion_version": "3", "signals": [{"name": "drift"}]}
    assert brought["decision_id"] is None
    assert dict(brought) == outcome(None)
    assert "verdict" not in brought
    with pytest.raises(KeyError, match="verdict"):
        brought["verdict"]


def test_the_newest_and_one_are_those_of_all(ledger: Ledger) -> None:
    verdicts = ["hold", "retrain", "hold", "recalibrate", "repair"]
    for number, verdict in enumerate(verdicts):
        ledger.record(decision(f"d{number}", T + timedelta(days=number), verdict), recorded_at=T)
    ledger.claim("d1", "run-1", as_of=T, recorded_at=T, is_alive=alive)
    ledger.close(outcome("d1", T + timedelta(days=2)), "run-1", key="k", recorded_at=T)
    everything = ledger.entries()
    assert ledger.newest() == everything[-1]
    assert ledger.newest("retrain", "recalibrate") == everything[3]
    assert ledger.newest("retrain") == everything[1]
    assert ledger.newest("retrain", as_of=T + timedelta(days=1)) == ledger.entries(as_of=T + timedelta(days=1))[1]
    assert ledger.newest("retrain", as_of=T) is None
    assert [ledger.entry(f"d{number}") for number in range(5)] == everything
    with pytest.raises(NotFoundError, match="m has no decision d9"):
        ledger.entry("d9")
