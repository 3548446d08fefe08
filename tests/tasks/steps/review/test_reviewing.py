"""Reviews on a real model: two people of known skill, what their answers become, and what may judge by them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_model
from many_model import LOOPS, MANY, many_rows
from small_model import World, day, merge, rows

from perennial.definition import ModelDefinition
from perennial.errors import DataError, NotFoundError
from perennial.review.desk import Desk
from perennial.review.events import Answer, read_reviews, write_events
from perennial.state.tables import ROW_ID
from tasks.check.text import render_text
from tasks.learning.fitting import fit_pipeline
from tasks.rows.frames import known_labels, label_steps
from tasks.rows.labels import label_frame
from tasks.rows.reviewed import ROW_WEIGHT, judging_labels, reviewed, training_weights
from tasks.steps import retrain as retraining
from tasks.steps.monitor import gather_inputs, run_check
from tasks.steps.review.answers import answer, desk_of, people
from tasks.steps.review.exchange import export_tasks, import_annotations
from tasks.steps.review.fill import fill_reviews
from tasks.steps.score import load_version, score_unscored

EXPORT = Path(__file__).parents[2] / "review" / "label_studio_export.json"  # as Label Studio 1.23.2 wrote it
TRUTH = dict(zip(rows(0, 25)["row"], rows(0, 25)["even"], strict=True))
SKILL = {"anna": 0.97, "ben": 0.9}
MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(trained: World, tmp_path: Path) -> Callable[..., World]:
    """The trained world with tables of its own, and a definition that asks for reviews."""

    def make(**review: Any) -> World:
        source = trained.workspace
        shutil.copytree(source.home / "tables", tmp_path / "tables")
        copy = replace(source, settings=source.settings.model_copy(update={"tables": str(tmp_path / "tables")}))
        raw = merge(trained.definition.model_dump(mode="json"), {"review": {"per_day": 30} | review})
        definition = ModelDefinition.model_validate(raw).model_copy(update={"path": trained.definition.path})
        return World(copy, definition, trained.training)

    return make


def sit_down(made: World, start: datetime, names: tuple[str, ...] = ("anna", "ben"), seed: int = 0) -> datetime:
    """Each person answers all that they are asked, a minute a row, as truly as their skill says; when they are done."""
    rng, now = np.random.default_rng(seed), start
    desk = desk_of(made.workspace.store, made.definition)
    for name in names:
        while asked := desk.ask(name, now, 500)[0]:
            answers = []
            for item in asked:
                now += MINUTE
                truth = TRUTH[item.id] if rng.random() < SKILL[name] else 1 - TRUTH[item.id]
                answers.append(desk.read({"id": item.id, "truth": str(truth), "seconds": 3}, at=now, author=name))
            answer(desk, answers)
    return now


def test_a_day_is_put_up_once_and_nothing_twice(world: Callable[..., World]) -> None:
    made = world()
    store = made.workspace.store
    first = fill_reviews(made.workspace, made.definition, as_of=day(13))
    assert (first.predictions, sum(first.put_up.values())) == (216, 30)
    again = fill_reviews(made.workspace, made.definition, as_of=day(13) + MINUTE)
    assert (again.put_up, again.told) == ({}, "those of 2024-03-19 were put up before")
    assert "no champion yet" in fill_reviews(made.workspace, made.definition, as_of=day(1)).told
    later = fill_reviews(made.workspace, made.definition, as_of=day(14))
    assert (later.predictions, later.put_up) == (0, {})
    offers = read_reviews(store, "digits").offers
    assert len(offers) == 30
    assert store.count("digits", "reviews") == 30
    scores = store.frame("digits", "predictions").set_index("id")["score"]
    assert all(scores[name] == offer.score for name, offer in offers.items())


def test_a_model_that_asks_for_no_reviews_is_left_alone(trained: World) -> None:
    with pytest.raises(DataError, match="digits has no reviews"):
        fill_reviews(trained.workspace, trained.definition, as_of=day(13))
    assert reviewed(trained.workspace.store, "digits", as_of=day(13)) is None
    inputs = gather_inputs(trained.workspace, trained.definition, trained.training.version, as_of=day(13))
    assert inputs.review is None
    assert "review" not in run_check(trained.workspace, trained.definition, as_of=day(13)).evidence
    assert retraining.prepare(trained.workspace, trained.definition, as_of=day(10)).reviewed_rows == 0


def test_what_people_see(world: Callable[..., World]) -> None:
    made = world(hide_score=True)
    fill_reviews(made.workspace, made.definition, as_of=day(13))
    desk = desk_of(made.workspace.store, made.definition)
    (item,), waiting = desk.ask("anna", day(13) + MINUTE, 1)
    assert waiting == 30
    assert (item.score, item.predicted, item.choices, item.again) == (None, None, ("0", "1"), False)
    digits = rows(10, 13).set_index("row")
    assert item.features == {name: digits.loc[item.id, name] for name in made.definition.features.columns}
    assert item.time == digits.loc[item.id, "when"]
    assert not {"reason", "truth", "wanted", "propensity"} & set(item.__dict__)


def test_answers_become_labels_with_their_authors(world: Callable[..., World]) -> None:
    made = world(double_share=0.5)
    store = made.workspace.store
    fill_reviews(made.workspace, made.definition, as_of=day(13))
    done = sit_down(made, day(13))
    items = desk_of(store, made.definition).items(done)
    settled = {name for name, item in items.items() if item.state == "settled"}
    labels = label_steps(store, "digits", ids=pd.Series(sorted(items), dtype="str"))
    assert set(labels["id"]) == settled
    assert set(labels["author"]) == {"anna", "ben"}
    of_two = labels[labels["id"].isin([name for name, item in items.items() if item.offer.wanted == 2])]
    assert of_two.groupby("id")["author"].nunique().eq(2).all()
    disputed = [name for name, item in items.items() if item.state == "disputed"]
    assert not labels["id"].isin(disputed).any()


def test_two_people_within_a_second_both_stay_and_a_correction_keeps_its_history(world: Callable[..., World]) -> None:
    made = world(double_share=0)
    store = made.workspace.store
    fill_reviews(made.workspace, made.definition, as_of=day(13))
    name = next(iter(read_reviews(store, "digits").offers))
    desks = [desk_of(store, made.definition) for _ in range(2)]
    at = day(13) + MINUTE
    assert answer(desks[0], [Answer(name, at, "anna", "truth", "1")]).labels == 1
    assert answer(desks[0], [Answer(name, at, "anna", "truth", "1")]).unchanged == 1
    answer(desks[1], [Answer(name, at, "ben", "truth", "0")])
    assert known_labels(store, "digits", as_of=day(14), ids=pd.Series([name])).empty  # they contradict each other
    answer(desks[0], [Answer(name, at, "anna", "truth", "0")])
    said = read_reviews(store, "digits").answers[name]
    assert [(one.author, one.truth) for one in said] == [("anna", "1"), ("ben", "0"), ("anna", "0")]
    steps = label_steps(store, "digits", ids=pd.Series([name]))
    assert [(row.author, row.truth) for row in steps.itertuples()][:1] == [("anna", 1.0)]
    assert steps["truth"].isna().tolist() == [False, True, False, False]
    assert known_labels(store, "digits", as_of=day(14), ids=pd.Series([name]))["truth"].tolist() == [0.0]
    assert known_labels(store, "digits", as_of=at, ids=pd.Series([name]))["truth"].tolist() == [1.0]


def test_a_label_that_a_death_left_unwritten_is_written_by_the_next_fill(world: Callable[..., World]) -> None:
    made = world(double_share=0)
    store = made.workspace.store
    fill_reviews(made.workspace, made.definition, as_of=day(13))
    name = next(iter(read_reviews(store, "digits").offers))
    write_events(store, "digits", [Answer(name, day(13) + MINUTE, "anna", "truth", "1")])
    assert known_labels(store, "digits", as_of=day(14), ids=pd.Series([name])).empty
    assert fill_reviews(made.workspace, made.definition, as_of=day(13.5)).labels == 1
    assert fill_reviews(made.workspace, made.definition, as_of=day(13.6)).labels == 0
    assert known_labels(store, "digits", as_of=day(14), ids=pd.Series([name]))["labelled_at"].tolist() == [
        pd.Timestamp(day(13) + MINUTE)
    ]


def test_truth_from_the_data_closes_a_row_and_is_not_taken_back_by_who_undoes(world: Callable[..., World]) -> None:
    made = world(double_share=0)
    store, definition = made.workspace.store, made.definition
    fill_reviews(made.workspace, definition, as_of=day(13))
    desk = desk_of(store, definition)
    (one, other), _ = desk.ask("anna", day(13), 2)
    answer(desk, [Answer(one.id, day(13) + MINUTE, "anna", "truth", str(1 - TRUTH[one.id]))])
    came = rows(10, 13)[["row", "even"]].query("row in @names", local_dict={"names": [one.id, other.id]})
    label_frame(store, definition, came, as_of=day(13) + 2 * MINUTE, author="file")
    assert other.id not in {item.id for item in desk.ask("ben", day(13) + 3 * MINUTE, 500)[0]}
    answer(desk, [Answer(one.id, day(13) + 4 * MINUTE, "anna", "undo")])
    labels = known_labels(store, "digits", as_of=day(14), ids=pd.Series([one.id]))
    assert labels["truth"].tolist() == [float(TRUTH[one.id])]
    assert one.id not in (reviewed(store, "digits", as_of=day(14)) or pytest.fail("nothing")).only


def test_what_is_asked_reads_only_what_happened_lately_and_old_disputes_come_back(world: Callable[..., World]) -> None:
    made = world(double_share=0, expires="2d")
    fill_reviews(made.workspace, made.definition, as_of=day(13))
    desk = desk_of(made.workspace.store, made.definition)
    one, other = list(desk.items(day(13)))[:2]
    answer(desk, [Answer(name, day(13) + MINUTE, "anna", "truth", "1") for name in (one, other)])
    assert len(desk.recent(day(13))) == 30
    assert desk.recent(day(15)) == {}
    assert desk.ask("ben", day(15), 9) == ([], 0)
    answer(desk, [Answer(one, day(15), "ben", "truth", "0")])
    assert list(desk.recent(day(15))) == [one]
    assert [item.id for item in desk.ask("cleo", day(15) + MINUTE, 9)[0]] == [one]


def test_gold_is_mixed_in_and_judges_people(world: Callable[..., World]) -> None:
    made = world(gold_share=0.5)
    store, definition = made.workspace.store, made.definition
    label_frame(store, definition, rows(10, 11)[["row", "even"]], as_of=day(12.9), author="file")
    put_up = fill_reviews(made.workspace, definition, as_of=day(13)).put_up
    assert put_up["gold"] == 15
    gold = {name for name, offer in read_reviews(store, "digits").offers.items() if offer.is_gold}
    assert gold <= set(rows(10, 11)["row"])
    before = label_steps(store, "digits", ids=pd.Series(sorted(gold), dtype="str"))
    done = sit_down(made, day(13))
    assert label_steps(store, "digits", ids=pd.Series(sorted(gold), dtype="str")).equals(before)
    found = people(store, definition, as_of=done)
    assert [(one.name, one.gold) for one in found.people] == [("anna", 15), ("ben", 15)]
    assert all(one.gold_right >= 11 for one in found.people)


def test_bad_answers_change_nothing(world: Callable[..., World]) -> None:
    made = world()
    fill_reviews(made.workspace, made.definition, as_of=day(13))
    desk = desk_of(made.workspace.store, made.definition)
    (item,), _ = desk.ask("anna", day(13), 1)
    good = Answer(item.id, day(13) + MINUTE, "anna", "truth", "1")
    with pytest.raises(NotFoundError, match="'nobody' was never put up for review in digits"):
        answer(desk, [good, Answer("nobody", day(13), "anna", "truth", "1")])
    with pytest.raises(DataError, match=r"ben has said nothing to \w+ that could be undone"):
        answer(desk, [good, Answer(item.id, day(13), "ben", "undo")])
    assert read_reviews(made.workspace.store, "digits").answers == {}


@pytest.fixture
def asked_much(world: Callable[..., World]) -> tuple[World, datetime]:
    """Half of three windows' predictions were put up, half of those at random, and answered by anna and ben."""
    made = world(per_day=120, random_share=0.5, unfamiliar_share=0, double_share=0)
    fill_reviews(made.workspace, made.definition, as_of=day(13))
    return made, sit_down(made, day(13), names=("anna",))


def test_quality_is_judged_on_the_random_share_alone(asked_much: tuple[World, datetime]) -> None:
    made, done = asked_much
    store, definition = made.workspace.store, made.definition
    decision = run_check(made.workspace, definition, as_of=day(14))
    told = decision.evidence
    assert told["judged"]
    chosen = {name for name, offer in read_reviews(store, "digits").offers.items() if not offer.drawn}
    drawn = 120 - len(chosen)
    assert drawn > 60
    assert told["review"] == {"random_share_judges": True, "drawn": drawn, "left_out": len(chosen)}
    assert told["loss"]["rows"] == drawn
    assert f"{len(chosen)} labels are left out: their rows were chosen" in " ".join(render_text(decision).split())
    made_scores = store.frame("digits", "predictions").set_index("id")["score"]
    truth = pd.Series(TRUTH)
    losses = (made_scores - truth.reindex(made_scores.index)) ** 2
    low, high = told["loss"]["interval"]
    assert low < losses.mean() < high
    assert losses[list(chosen)].mean() > 1.4 * losses.mean()  # what was chosen by margin would have said
    assert set(judging_labels(store, "digits", as_of=done)["id"]) & chosen == set()


def test_reviewed_rows_teach_with_weights_and_those_chosen_do_not_judge(asked_much: tuple[World, datetime]) -> None:
    made, _ = asked_much
    prepared = retraining.prepare(made.workspace, made.definition, as_of=day(15))
    found = reviewed(made.workspace.store, "digits", as_of=day(15))
    assert found is not None
    frame, split = prepared.frame, prepared.split
    assert prepared.reviewed_rows == len(found.only) == 120
    chosen = frame[ROW_ID].isin(list(found.chosen)).to_numpy()
    assert not chosen[split.holdout].any()
    assert not any(chosen[fold.validation].any() for fold in split.folds)
    assert chosen[split.aside].all()
    assert chosen[np.concatenate([split.learning, split.aside])].sum() == len(found.chosen)
    weights = frame[ROW_WEIGHT]
    assert (weights[~frame[ROW_ID].isin(list(found.only))] == 1).all()
    mine = weights[frame[ROW_ID].isin(list(found.only))]
    assert mine.mean() == pytest.approx(1)
    assert weights[chosen].max() < 1 < mine.max()
    assert mine.max() / mine.min() == pytest.approx((216 - 60) / 60)
    light = retraining.fit(prepared.encoded, prepared.learned, {"C": 1.0}, 0)
    plain = retraining.fit(prepared.encoded, prepared.learned.drop(columns=ROW_WEIGHT), {"C": 1.0}, 0)
    assert not np.allclose(light.pipeline.steps[-1][1].coef_, plain.pipeline.steps[-1][1].coef_)
    alike = made.definition.model_copy(update={"review": made.definition.review.model_copy(update={"most_weight": 1})})
    assert ROW_WEIGHT not in retraining.prepare(made.workspace, alike, as_of=day(15)).frame


def test_weights_are_clipped_and_one_on_average(asked_much: tuple[World, datetime]) -> None:
    found = reviewed(asked_much[0].workspace.store, "digits", as_of=day(15))
    assert found is not None
    ids = pd.Series([*found.only, "another"], dtype="str")
    weights = training_weights(ids, found, 2.0)
    assert weights[-1] == 1
    assert weights[:-1].mean() == pytest.approx(1)
    assert weights[:-1].max() / weights[:-1].min() == pytest.approx(2)


def test_an_estimator_that_takes_no_weights_is_refused_with_the_remedy(trained: World) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    weights = np.array([1.0, 2.0])
    with pytest.raises(
        DataError, match=r"takes no weights, and rows were chosen for review\. Set review.most_weight: 1"
    ):
        fit_pipeline(KNeighborsClassifier(1), np.eye(2), np.array([0.0, 1.0]), trained.definition, weights)


def offered(made: World) -> Desk:
    """The rows of Label Studio's export, put up."""
    desk = desk_of(made.workspace.store, made.definition)
    fill_reviews(made.workspace, made.definition, as_of=day(13))
    return desk


def test_label_studio_gets_tasks_with_predictions_and_its_answers_come_back(
    world: Callable[..., World], tmp_path: Path
) -> None:
    """The file that Label Studio wrote: two agree, two contradict each other, a skip, a can't tell, a gold row."""
    made = world(per_day=400)
    desk = offered(made)
    out = export_tasks(made.workspace, made.definition, tmp_path / "tasks.json", as_of=day(13) + MINUTE)
    tasks = json.loads(Path(out.tasks).read_text())
    assert out.count == len(tasks) == 216
    assert {task["predictions"][0]["model_version"] for task in tasks} == {"digits v1"}
    assert all(task["predictions"][0]["score"] >= 0.5 for task in tasks)
    assert '<Choice value="1"/>' in Path(out.page).read_text()
    document = json.loads(EXPORT.read_text())
    names = {f"r07{number:02}": f"r{730 + number:04}" for number in range(8)}
    for task in document:
        task["data"]["id"] = names[task["data"]["id"]]
    exported = tmp_path / "export.json"
    exported.write_text(json.dumps(document))
    later = datetime.fromisoformat("2026-11-29T00:00:00+00:00")
    authors = {"1": "anna", "2": "ben"}
    done = import_annotations(made.workspace, made.definition, exported, authors=authors, as_of=later)
    assert (done.written, done.gold, done.authors) == (10, 1, ("anna", "ben"))
    items = desk.items(later)
    states = {old: items[new].state for old, new in names.items()}
    assert states["r0700"] == "settled"
    assert states["r0705"] == "disputed"
    assert (states["r0702"], items[names["r0702"]].outcome.truth) == ("settled", None)
    assert items[names["r0703"]].answers[0].says == "skip"
    assert items[names["r0707"]].answers[0].says == "cannot_tell"  # in a browser, with our prediction left ticked
    assert items[names["r0704"]].gold == "1"
    assert items[names["r0701"]].answers[0].note == "smudged"
    assert items[names["r0701"]].answers[0].seconds == 4.25
    labels = known_labels(made.workspace.store, "digits", as_of=later, ids=pd.Series(sorted(names.values())))
    assert dict(zip(labels["id"], labels["truth"], strict=True)) == {
        names["r0700"]: 1.0, names["r0701"]: 0.0, names["r0704"]: 1.0, names["r0706"]: 0.0,
    }  # fmt: skip
    again = import_annotations(made.workspace, made.definition, exported, authors=authors, as_of=later)
    assert (again.written, again.labels, again.gold, again.unchanged) == (0, 0, 0, 10)
    # Whoever has changed their answer here since is not overruled by an old export.
    answer(desk, [Answer(names["r0706"], later, "ben", "truth", "1")])
    assert import_annotations(made.workspace, made.definition, exported, authors=authors, as_of=later).written == 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda document: {"tasks": document}, "no JSON export of Label Studio"),
        (lambda document: [{"data": {}, "annotations": []}], "has no data.id"),
        (lambda document: [{"data": {"id": "r0730"}}], "has no annotations"),
        (lambda document: [merge(document[0], {"data": {"model": "others"}})], "is of model 'others', not digits"),
        (lambda document: _with(document, completed_by=None), "has no completed_by"),
        (lambda document: _with(document, result=[]), "says nothing"),
        (lambda document: _with(document, updated_at="soon"), "'soon' is no ISO 8601 time"),
        (lambda document: _with(document, updated_at="2027-01-01T00:00:00Z"), "lies in the future"),
        (lambda document: _with(document, result=[_choice("2")]), "'2' is neither '0' nor '1'"),
        (lambda document: _with(document, result=[_choice("0"), _choice("1")]), "says '0', '1'"),
    ],
)
def test_an_export_that_cannot_be_understood_changes_nothing(
    world: Callable[..., World], tmp_path: Path, change: Callable[[Any], Any], problem: str
) -> None:
    made = world(per_day=400)
    offered(made)
    path = tmp_path / "export.json"
    path.write_text(json.dumps(change(json.loads(EXPORT.read_text()))))
    later = datetime.fromisoformat("2026-11-29T00:00:00+00:00")
    with pytest.raises(DataError) as caught:
        import_annotations(made.workspace, made.definition, path, authors={}, as_of=later)
    assert problem in str(caught.value)
    assert read_reviews(made.workspace.store, "digits").answers == {}


def _choice(word: str) -> dict[str, Any]:
    return {"from_name": "truth", "to_name": "row", "type": "choices", "value": {"choices": [word]}}


def _with(document: Any, **changes: Any) -> Any:
    task = document[0]
    return [task | {"annotations": [task["annotations"][0] | changes]}]


@pytest.mark.slow
def test_the_ledger_says_how_many_reviewed_labels_fed_a_training(workspace: Any) -> None:
    """A model whose newest truths come from people alone learns from them, and is judged without those chosen."""
    definition = small_model.define(workspace, review={"per_day": 100, "double_share": 0, "unfamiliar_share": 0})
    small_model.add(workspace, definition, rows(0, 10), as_of=day(10), history=True)
    first = small_model.retrain(workspace, definition, as_of=day(10))
    small_model.add(workspace, definition, rows(10, 13).drop(columns="even"), as_of=day(13))
    pipeline = load_version(workspace.registry, first.version, definition)
    score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(13))
    fill_reviews(workspace, definition, as_of=day(13))
    made = World(workspace, definition, first)
    sit_down(made, day(13), names=("anna",))
    again = small_model.retrain(workspace, definition, as_of=day(15))
    assert again.prepared.reviewed_rows == 100
    outcome = [dict(row) for row in workspace.ledger("digits").rows() if row["kind"] == "outcome"][-1]
    assert outcome["reviewed_rows"] == 100
    assert again.record.metrics["rows.reviewed"] == 100
    assert again.judged.report.rows == len(again.prepared.split.holdout)
    assert "reviewed_rows" not in next(dict(row) for row in workspace.ledger("digits").rows())
    learned = int(again.version.tag("trained_rows"))
    assert learned >= len(again.prepared.split.learning)


@pytest.mark.slow
def test_of_more_than_two_classes_the_doubt_is_between_the_two_likeliest(workspace: Any, tmp_path: Path) -> None:
    raw = merge(MANY, {"review": {"per_day": 40, "random_share": 0.25, "unfamiliar_share": 0, "gold_share": 0.1}})
    (workspace.settings.model_folders[0] / "loops.yaml").write_text(json.dumps(raw))
    (workspace.settings.expectation_folders[0] / "loops.json").write_text(
        json.dumps(small_model.SUITE | {"name": "loops"})
    )
    definition = workspace.definition("loops")
    small_model.add(workspace, definition, many_rows(0, 10), as_of=day(10), history=True)
    first = small_model.retrain(workspace, definition, as_of=day(10))
    small_model.add(workspace, definition, many_rows(10, 13).drop(columns=["loops", "digit"]), as_of=day(13))
    pipeline = load_version(workspace.registry, first.version, definition)
    score_unscored(workspace.store, definition, pipeline, version=1, as_of=day(13))
    fill_reviews(workspace, definition, as_of=day(13))
    offers = read_reviews(workspace.store, "loops").offers
    made = workspace.store.frame("loops", "predictions").set_index("id")["score"]
    ordered = {name: np.sort(scores)[::-1] for name, scores in made.items()}
    by_margin = sorted(ordered, key=lambda name: ordered[name][0] - ordered[name][1])[:30]
    assert {name for name, offer in offers.items() if offer.reason == "margin"} == set(by_margin)
    for name, offer in offers.items():
        assert offer.score == pytest.approx(ordered[name][0])
        assert offer.predicted == LOOPS[int(np.argmax(made[name]))]
    desk = desk_of(workspace.store, definition)
    (item,), _ = desk.ask("anna", day(13) + MINUTE, 1)
    assert item.choices == LOOPS
    read = desk.read({"id": item.id, "truth": "two"}, at=day(13) + MINUTE, author="anna")
    assert answer(desk, [read]).labels == (1 if offers[item.id].wanted == 1 else 0)
    with pytest.raises(DataError, match="'three'"):
        desk.read({"id": item.id, "truth": "three"}, at=day(13) + MINUTE, author="anna")
    out = export_tasks(workspace, definition, tmp_path / "tasks.json", as_of=day(13) + MINUTE)
    assert '<Choice value="two"/>' in Path(out.page).read_text()
    for task in json.loads(Path(out.tasks).read_text()):
        (prediction,) = task["predictions"]
        name = task["data"]["id"]
        assert prediction["result"][0]["value"]["choices"] == [offers[name].predicted]
        assert prediction["score"] == offers[name].score
