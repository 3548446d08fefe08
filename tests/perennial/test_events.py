from __future__ import annotations

from datetime import UTC, datetime

import pytest

from perennial.events import IN_DOUBT, PROMOTED, REFUSED, ROLLED_BACK, WAITING, reign_event, reign_payload
from perennial.state.registry import Reign

MOMENT = datetime(2026, 1, 31, 6, tzinfo=UTC)


def reign(action: str, previous: int | None = 3) -> Reign:
    return Reign(5, 4, previous, action, MOMENT, MOMENT, "run", "log_loss fell", "decision")


@pytest.mark.parametrize(
    ("action", "event"),
    [("promote", PROMOTED), ("recalibrate", PROMOTED), ("approve", PROMOTED), ("rollback", ROLLED_BACK)],
)
def test_each_change_of_champion_has_its_event(action: str, event: str) -> None:
    assert reign_event(reign(action)) == event


def test_what_a_change_of_champion_tells() -> None:
    told = reign_payload("toy", reign("promote", previous=None))
    assert (told["version"], told["previous"], told["sequence"], told["at"]) == (
        4,
        None,
        5,
        "2026-01-31T06:00:00+00:00",
    )
    assert told["subject"] == "toy: version 4 is champion"
    assert told["text"] == "Since 2026-01-31 06:00 UTC version 4 is champion of toy, instead of none: log_loss fell."
    back = reign_payload("toy", reign("rollback"))
    assert back["subject"] == "toy: version 4 is champion again"


@pytest.mark.parametrize(
    ("verdict", "waits", "event", "subject"),
    [
        ("keep", False, REFUSED, "toy: version 4 was kept out by the gate"),
        ("wait", False, IN_DOUBT, "toy: version 4 waits for evidence"),
        ("insufficient evidence", False, REFUSED, "toy: version 4 was kept out by the gate"),
        ("promote", True, WAITING, "toy: version 4 waits for a person"),
        # The gate let it in, but it failed live before.
        ("promote", False, REFUSED, "toy: version 4 was kept out by the gate"),
    ],
)
def test_what_a_gate_without_a_new_champion_tells(
    verdict: str, waits: bool, event: str, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import recording

    told: list[tuple[str, str, dict[str, object]]] = []
    monkeypatch.setattr(recording, "announce", lambda *arguments: told.append(arguments))
    recording.announce_gate("toy", 4, verdict, ("log_loss rose",), None, waits=waits)
    ((found, model, payload),) = told
    assert (found, model, payload["subject"]) == (event, "toy", subject)
    assert str(payload["text"]).endswith("log_loss rose.")
