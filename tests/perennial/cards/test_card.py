"""A card says what is known, in Markdown that no data can break out of, and fits where MLflow keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perennial.cards.card import DESCRIPTION_LENGTH, Facts, escape, render_card, render_description
from perennial.cards.page import render_page
from perennial.definition import ModelDefinition
from perennial.state.registry import Reign, Version

AT = datetime(2026, 3, 1, 6, tzinfo=UTC)
RAW: dict[str, Any] = {
    "name": "trips", "task": "classification", "description": "Is the trip late?",
    "data": {"source": {"csv": "rows.csv"}, "id": "id", "time": "time", "target": "late", "label_delay": "7d"},
    "features": {"numeric": ["distance"], "categorical": ["place"]},
    "gate": {"limits": {"roc_auc": {"min": 0.6}}, "slices": ["place"]},
    "card": {"purpose": "For **planning** only.", "limits": "Not at Christmas.", "text": "See [us](https://us.example)."},
}  # fmt: skip
GATE = {
    "verdict": "promote", "metric": "log_loss", "reasons": ["It is surely better."], "rows": 500, "blocks": 20,
    "metrics": {"challenger": {"log_loss": 0.5}, "champion": {"log_loss": 0.6}, "baseline": {"log_loss": 0.69}},
    "checks": [
        {"name": "better_than_champion", "passed": True, "value": 0.1, "limit": -0.02, "bound": "min", "blocking": True,
         "interval": {"low": 0.05, "high": 0.15}, "unit": "relative", "detail": ""},
        {"name": "slice:place=north", "passed": False, "value": -0.1, "limit": -0.05, "bound": "min", "blocking": False,
         "interval": None, "unit": "relative", "detail": "north is surely worse"},
    ],
}  # fmt: skip
EVALUATION = {
    "rows": 500, "confidence": 0.95, "loss": "log_loss",
    "metrics": {"log_loss": {"value": 0.5, "low": 0.45, "high": 0.55},
                "roc_auc": {"value": 0.8, "low": 0.7, "high": 0.9}},
    "slices": [{"column": "place", "value_of": "north", "rows": 250, "metric": "log_loss", "value": 0.52, "low": 0.4,
                "high": 0.6}],
    "calibration": [{"said": 0.2, "came": 0.4, "low": 0.3, "high": 0.5, "rows": 250},
                    {"said": 0.7, "came": 0.7, "low": 0.6, "high": 0.8, "rows": 250}],
    "segments": {"looked_at": 12, "of": 1, "metric": "log_loss", "found": [
        {"where": "place = west", "rows": 90, "loss": 0.9, "elsewhere": 0.45, "lift_low": 0.2, "lift_high": 0.7}]},
}  # fmt: skip
TAGS = {
    "perennial.trained_from": "2025-01-01T00:00:00+00:00", "perennial.trained_until": "2026-02-01T00:00:00+00:00",
    "perennial.trained_rows": "12000", "perennial.data_version": "batches@7", "perennial.classes": '["no", "yes"]',
    "perennial.parameters": '{"depth": 3}', "perennial.gate.verdict": "promote",
}  # fmt: skip


def definition(**changes: Any) -> ModelDefinition:
    return ModelDefinition.model_validate({**RAW, **changes})


def facts(**changes: Any) -> Facts:
    version = Version("trips", 2, "run", "models:/m-1", TAGS, AT)
    reign = Reign(2, 2, 1, "approve", AT, AT, "ada", "looks right", "decision-1")
    made = Facts(definition(), version, [reign], GATE, EVALUATION, metrics={"importance/distance": 0.2}, written_at=AT)
    return replace(made, **changes)


def test_a_card_says_all_that_is_asked_of_it() -> None:
    text = render_card(facts())
    for told in (
        "Champion since 2026-03-01 06:00 UTC, let in by ada: looks right.",
        "Is the trip late?", "For **planning** only.", "the probability of yes rather than no",
        "the truth is known 7d later", "See [us](https://us.example).",
        "| **log\\_loss** | 0.5 | 0.45 to 0.55 | 0.6 | 0.69 |", "intervals of 95 %",
        "| place = north | 250 | 0.52 | 0.4 to 0.6 |",
        "outside of the interval of what came in 1 of 2 bins",
        "1 of 12 segments", "| place = west | 90 | 0.9 | 0.45 | 0.2 to 0.7 |",
        "Not at Christmas.", "from 2025-01-01 to 2026-02-01", "roc\\_auc must be at least 0.6",
        "12,000 rows", "batches@7", "- It is surely better.",
        "| better\\_than\\_champion | passed | 0.1 | ≥ -0.02 | 0.05 to 0.15 |",
        "**failed** (told only)", "approve by ada: looks right (decision `decision-1`)", "- distance: 0.2",
        "{\"depth\": 3}",
    ):  # fmt: skip
        assert told in text, told


def test_a_version_of_before_there_were_cards_has_one_that_says_what_is_not_known() -> None:
    text = render_card(facts(gate=None, evaluation=None, history=[], metrics={}))
    for told in ("It has not been champion.", "Nothing was recorded of its quality.", "Nobody has looked for them",
                 "The run has no report of the gate.", "Nobody."):  # fmt: skip
        assert told in text, told


def test_after_a_roll_back_it_says_who_reigns_now() -> None:
    later = Reign(3, 1, 2, "rollback", AT, AT, "probation", "worse", None)
    assert "version 1 is since 2026-03-01" in render_card(facts(history=[*facts().history, later]))


def test_a_map_tells_of_the_weak_segments_of_its_model() -> None:
    tags = TAGS | {"perennial.kind": "recalibration", "perennial.base_version": "1",
                   "perennial.recalibration": json.dumps({"method": "platt"})}  # fmt: skip
    own = EVALUATION | {"segments": {"looked_at": 0, "found": []}}
    text = render_card(facts(version=replace(facts().version, tags=tags), evaluation=own, base=EVALUATION))
    assert "(of version 1, before its map)" in text
    assert "goes through a map (platt) of version 1" in text


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


HARMLESS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "thead", "tbody", "tr", "th",
            "td", "code", "strong", "ul", "li", "a"}  # fmt: skip
NASTY = st.one_of(
    st.text(max_size=60),
    st.sampled_from([
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "`<b>`", "|a|b|",
        "\n# big\n", "![](http://example.com/x.png)", "</td></table><script>", "&lt;script&gt;", "\\<b>", "***", "~~~",
    ]),
)  # fmt: skip


@settings(max_examples=40)
@given(NASTY, NASTY, NASTY)
def test_no_text_of_data_or_people_becomes_an_element(value: str, reason: str, name: str) -> None:
    found = EVALUATION | {"slices": [EVALUATION["slices"][0] | {"value_of": value}]}  # type: ignore[index]
    reign = replace(facts().history[0], reason=reason, by=name)
    text = render_card(facts(evaluation=found, history=[reign], definition=definition(description=reason)))
    elements = Elements(render_page(text, name)).found
    assert {tag for tag, _ in elements} <= HARMLESS
    assert [values for tag, values in elements if tag == "a"] == [{"href": "https://us.example"}]
    # The slice's row is one row of four cells whatever its value is.
    plain = Elements(render_page(render_card(facts(definition=definition(description=""))), "")).found
    for tag in ("tr", "td", "h1", "h2"):
        assert sum(item == tag for item, _ in elements) == sum(item == tag for item, _ in plain), tag


def test_html_in_peoples_own_text_is_shown_as_text() -> None:
    own = {"text": '<script>alert(1)</script> [x](javascript:alert(1)) <a href="https://x.example">y</a>'}
    page = render_page(render_card(facts(definition=definition(card=own))), "<b>")
    assert "script" not in {tag for tag, _ in Elements(page).found}
    assert not [values for tag, values in Elements(page).found if tag == "a"]
    assert "&lt;script&gt;" in page
    assert "<title>&lt;b&gt;</title>" in page


@given(st.text(max_size=50))
def test_escaped_text_is_one_line(text: str) -> None:
    assert "\n" not in escape(text)
    assert "|" not in escape(text).replace("\\|", "")


@pytest.mark.parametrize("length", [0, 3000, 20_000])
def test_the_description_fits_where_mlflow_keeps_it_and_names_the_rest(length: int) -> None:
    told = facts(definition=definition(card={"purpose": "p" * length}))
    text = render_description(told, "card/card.md")
    assert len(text) <= DESCRIPTION_LENGTH
    assert text.startswith("# trips, version 2")
    assert text.endswith("The whole card: `card/card.md` among the artifacts of the version's run.")
    assert ("Limits" in text) == (length < 4000)
