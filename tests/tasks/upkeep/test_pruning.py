"""What a prune removes and what it leaves, on a real registry, real tables and files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import small_model

from perennial.model.artifacts import folder_digest
from perennial.model.scores import score_array, score_column
from perennial.serving.log.shipper import SHADOW
from perennial.state.registry import Version
from perennial.state.store import Store
from perennial.workspace import Workspace
from tasks.intake.quarantine import entries, held_back
from tasks.rows.frames import labelled_rows
from tasks.steps.quarantine import Chosen, discard
from tasks.steps.register import register_training
from tasks.upkeep.prune import prune_model
from tasks.upkeep.tables import remove_predictions

NOW = datetime.now(UTC) + timedelta(days=400)
RETENTION = {"predictions": "100d"}


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]
) -> small_model.World:  # fmt: skip
    """A champion, three challengers that were kept out, one of them pinned, and a table in many files."""
    workspace = make_workspace(tmp_path_factory.mktemp("prune"))
    definition = small_model.define(workspace, retention=RETENTION)
    small_model.add(workspace, definition, small_model.rows(0, 10), as_of=small_model.day(10), history=True)
    trained = small_model.retrain(workspace, definition, as_of=small_model.day(10))
    assert trained.reign is not None
    for number in range(10, 13):
        small_model.add(workspace, definition, small_model.rows(number, number + 1), as_of=small_model.day(number + 1))
    assert workspace.store.compact("digits", "batches")
    for key, pinned in (("a", ""), ("b", "true"), ("c", "")):
        read = workspace.store.version("digits", "batches")
        lineage = {**trained.record.lineage, "data_version": f"batches@{read}#x", "pinned": pinned}
        register_training(workspace.registry, replace(trained.record, key=key, lineage=lineage))
    return small_model.World(workspace, definition, trained)


def freed(world: small_model.World, at: datetime = NOW, *, dry_run: bool = False) -> dict[str, Any]:
    found = prune_model(world.workspace, world.definition, as_of=at, dry_run=dry_run, quiet_hours=0)
    return {item.what: item for item in found}


def files_of(version: Version, workspace: Workspace) -> list[Path]:
    """The folders of a version's model and run."""
    client = workspace.registry.client
    model = client.get_logged_model(version.source.removeprefix("models:/")).artifact_location
    run = client.get_run(version.run_id).info.artifact_uri
    return [Path(place.removeprefix("file://")) for place in (model, run)]


def test_a_prune_frees_what_it_said_and_nothing_that_is_needed(world: small_model.World) -> None:
    workspace, store = world.workspace, world.workspace.store
    registry = workspace.registry
    champion, outdated, pinned, newest = registry.versions("digits")
    gone, kept = files_of(outdated, workspace), files_of(champion, workspace)
    before = labelled_rows(store, world.definition, as_of=small_model.day(10))
    number = int(champion.tag("data_version").partition("batches@")[2].split(",")[0].split("#")[0])
    read = store.frame("digits", "batches", version=number)
    now = store.frame("digits", "batches")

    foretold = freed(world, dry_run=True)
    assert len(registry.versions("digits")) == 4
    assert all(place.is_dir() for place in gone)
    done = freed(world)

    assert [item.number for item in registry.versions("digits")] == [champion.number, pinned.number, newest.number]
    assert (done["kept-out versions"].count, done["kept-out versions"].notes) == (1, [str(outdated.number)])
    for what in ("kept-out versions", "runs without a version"):
        assert foretold[what] == done[what]
    assert done["runs without a version"].size_bytes > 10_000
    assert not any(place.exists() for place in gone)
    assert all(place.is_dir() for place in kept)
    assert folder_digest(registry.artifacts(champion)) == champion.digest
    assert 1 <= done["files of the tables"].count == foretold["files of the tables"].count
    assert len(list(Path(store.location("digits", "batches")).glob("*.parquet"))) == 2  # the champion's, and the newest
    pd.testing.assert_frame_equal(store.frame("digits", "batches", version=number), read)
    after = labelled_rows(store, world.definition, as_of=small_model.day(10))
    pd.testing.assert_frame_equal(after.frame, before.frame)
    order = lambda frame: frame.sort_values("_id", ignore_index=True)  # noqa: E731
    pd.testing.assert_frame_equal(order(store.frame("digits", "batches")), order(now))
    # A batch that came before is known still: the keys of appends outlive the log.
    again = small_model.add(workspace, world.definition, small_model.rows(12, 13), as_of=NOW)
    assert (again.verdict, again.kept) == ("known", 0)
    assert freed(world)["kept-out versions"].count == 0


def test_a_prune_that_was_killed_after_the_version_is_finished_by_the_next(world: small_model.World) -> None:
    workspace = world.workspace
    registered = register_training(
        workspace.registry, replace(world.training.record, key="killed", lineage=dict(world.training.record.lineage))
    )
    places = files_of(registered, workspace)
    workspace.registry.client.delete_model_version("digits", str(registered.number))
    assert freed(world)["runs without a version"].count == 1
    assert not any(place.exists() for place in places)


def test_old_predictions_go_and_young_ones_stay(world: small_model.World) -> None:
    store = world.workspace.store
    moments = [NOW - timedelta(days=days) for days in (101, 99)]
    rows = pd.DataFrame(
        {"id": ["old", "young"], "time": moments, "score": 0.5, "version": 1, "predicted_at": moments, "origin": "api"}
    )
    for place in ("digits", f"digits/{SHADOW}"):
        store.append(place, "predictions", rows)
    assert freed(world, dry_run=True)["predictions"].count == 2
    assert freed(world)["predictions"].count == 2
    for place in ("digits", f"digits/{SHADOW}"):
        assert store.frame(place, "predictions")["id"].tolist() == ["young"]


def test_old_predictions_of_many_classes_go_and_their_files_are_merged(tmp_path: Path) -> None:
    """Their scores are lists, which a file that is written anew must keep."""
    store, moments = Store(str(tmp_path)), [NOW - timedelta(days=days) for days in (101, 99)]
    scores = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    rows = pd.DataFrame(
        {"id": ["old", "young"], "time": moments, "score": score_column(scores), "version": 1, "predicted_at": moments,
         "origin": "api"}
    )  # fmt: skip
    store.append("loops", "predictions", rows)
    assert remove_predictions(store, "loops", kept=timedelta(days=100), as_of=NOW, dry_run=False).count == 1
    for number in range(12):
        store.append("loops", "predictions", rows.tail(1).assign(id=f"later {number}"))
    assert store.compact("loops", "predictions")
    found = store.frame("loops", "predictions").sort_values("id")
    assert set(found["id"]) == {"young"} | {f"later {number}" for number in range(12)}
    np.testing.assert_array_equal(score_array(found["score"]), np.tile(scores[1], (13, 1)))


def test_mended_entries_go_and_discarded_ones_stay_known(world: small_model.World) -> None:
    workspace, definition = world.workspace, world.definition
    at = small_model.day(25)
    good = small_model.rows(24, 25)
    broken = good.assign(ink_11=99.0).head(4)
    small_model.add(workspace, definition, pd.concat([broken, good.tail(60)]), as_of=at)
    names = entries(workspace.store, definition).set_index("id")["entry"]
    assert list(names.index) == broken["row"].tolist()
    discard(workspace.store, definition, Chosen(names=(names.iloc[0],)), at=at, by="me", reason="never was")
    small_model.add(workspace, definition, good.iloc[1:2], as_of=at)
    states = entries(workspace.store, definition).set_index("id")["state"].tolist()
    assert states == ["discarded", "superseded", "open", "open"]
    what = "closed rows of the quarantine"
    assert freed(world, at + timedelta(days=170))[what].count == 0
    assert freed(world, at + timedelta(days=190), dry_run=True)[what].count == 1
    assert freed(world, at + timedelta(days=190))[what].count == 1
    assert entries(workspace.store, definition)["state"].tolist() == ["discarded", "open", "open"]
    assert held_back(workspace.store, definition, broken).tolist() == [True, False, True, True]


def test_files_go_by_when_they_were_written(world: small_model.World) -> None:
    home, old = world.workspace.home, (NOW - timedelta(days=181)).timestamp()
    for name, written in (("old.html", old), ("young.html", old + 2 * 86400)):
        path = world.workspace.reports_folder("digits") / name
        path.write_text("page")
        os.utime(path, (written, written))
    assert freed(world)["reports"].count == 1
    assert [path.name for path in (home / "reports" / "digits").iterdir()] == ["young.html"]


def test_a_model_without_anything_has_nothing_to_free(
    make_workspace: Callable[[Path], Workspace], tmp_path: Path
) -> None:
    workspace = make_workspace(tmp_path)
    found = prune_model(workspace, small_model.define(workspace), as_of=NOW, dry_run=False)
    assert sum(item.count for item in found) == 0
