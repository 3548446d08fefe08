"""A team's own fitted model becomes the first champion, is watched as any, and what doesn't fit is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
import small_model
from many_model import LOOPS, MANY, many_rows
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from small_model import NUMERIC, add, day, define, retrain, rows

from perennial.definition import ModelDefinition
from perennial.errors import ConflictError, DataError, DefinitionError, NotFoundError
from perennial.model.adopted import Adopted
from perennial.model.features import feature_frame
from perennial.model.truth import Classes
from perennial.workspace import Workspace
from tasks.adoption.adopt import adopt, write_unfitted
from tasks.adoption.finding import Found, find_model
from tasks.adoption.matching import matched
from tasks.learning.fitting import predict_score
from tasks.steps.score import load_version

COLUMNS = ["shade", *NUMERIC[::-1]]


def team_model(words: bool = True, last: float = 6) -> Pipeline:
    """As a team would have it: its own order of columns, its own words for the classes."""
    frame = rows(0, last)
    target = frame["even"].map({0: "odd", 1: "even"}) if words else frame["even"]
    prepare = ColumnTransformer([("shade", OneHotEncoder(handle_unknown="ignore"), ["shade"])], remainder="passthrough")
    return make_pipeline(prepare, StandardScaler(with_mean=False), LogisticRegression(max_iter=2000)).fit(
        frame[COLUMNS], target
    )


def logistic(features: Any, target: Any) -> LogisticRegression:
    return LogisticRegression(max_iter=2000).fit(features, target)


def stored(tmp_path: Path, model: Any, name: str = "team.skops") -> Path:
    path = tmp_path / name
    skops.io.dump(model, path) if name.endswith(".skops") else joblib.dump(model, path)
    return path


@pytest.fixture
def definition(workspace: Workspace) -> ModelDefinition:
    made = define(workspace, classes=["odd", "even"])
    frame = rows(0, 12)
    add(workspace, made, frame.assign(even=frame["even"].map({0: "odd", 1: "even"})), as_of=day(13), history=True)
    return made


def found_in(workspace: Workspace, definition: ModelDefinition, place: object) -> Found:
    return find_model(str(place), definition, tracking_uri=workspace.settings.mlflow_uri)


def test_a_file_becomes_the_first_champion(workspace: Workspace, definition: ModelDefinition, tmp_path: Path) -> None:
    model = team_model()
    found = found_in(workspace, definition, stored(tmp_path, model))
    done = adopt(
        workspace, definition, found, trained_until=day(6), by="ana", reason="it serves today", as_of=day(13)
    )  # fmt: skip
    assert workspace.registry.champion("digits") == done.version
    assert (done.reign.action, done.reign.by, done.reign.reason) == ("adopt", "ana", "adopted: it serves today")
    assert done.version.tag("kind") == "adopted"
    assert done.version.tag("adopted_from") == "team.skops"
    assert done.report.reasons[0] == "adopted by ana: it serves today"
    assert done.report.reasons[1] == f"it has learned from none of the newest {done.report.rows:,} labelled rows"
    assert done.unseen_rows == done.report.rows
    assert "baseline" in done.report.metrics
    # "even" comes before "odd" in the model, and is positive here.
    features = feature_frame(rows(10, 11), definition.features)
    loaded = load_version(workspace.registry, done.version, definition)
    np.testing.assert_array_equal(
        predict_score(loaded, features, "classification"), model.predict_proba(rows(10, 11)[COLUMNS])[:, 0]
    )
    assert list(loaded.predict(features)) == [int(word == "even") for word in model.predict(rows(10, 11)[COLUMNS])]
    with pytest.raises(ConflictError, match="digits has a champion, version 1: only a first one is adopted"):
        adopt(workspace, definition, found, trained_until=None, by="ana", reason="again", as_of=day(13))
    # From then on it is challenged as any champion, by its own kind.
    assert done.repeatable == ""
    write_unfitted(found.model, definition.folder / "digits-adopted.skops")
    again = define(workspace, classes=["odd", "even"], training={"estimator": "digits-adopted.skops"})
    more = rows(12, 20)
    add(workspace, again, more.assign(even=more["even"].map({0: "odd", 1: "even"})), as_of=day(21), history=True)
    challenger = retrain(workspace, again, as_of=day(21))
    assert challenger.version.number == 2
    assert challenger.judged.report.metrics["champion"]
    assert type(challenger.final.pipeline[-1]) is LogisticRegression


def test_who_is_not_told_what_it_saw_says_so(workspace: Workspace, definition: ModelDefinition, tmp_path: Path) -> None:
    found = found_in(workspace, definition, stored(tmp_path, team_model()))
    done = adopt(workspace, definition, found, trained_until=None, by="ana", reason="why", as_of=day(13))
    assert done.unseen_rows is None
    assert "can't be known: their figures may flatter it" in done.report.reasons[1]
    # Nobody is judged beside it by rows that it may have learned from.
    assert done.version.tag("trained_until") == day(13).isoformat()


def test_a_version_of_mlflow(workspace: Workspace, definition: ModelDefinition, tmp_path: Path) -> None:
    import mlflow

    uri = f"sqlite:///{tmp_path / 'theirs.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("theirs", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment("theirs")
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            team_model(), name="model", registered_model_name="churn", pip_requirements=[], serialization_format="skops"
        )
    mlflow.MlflowClient(uri).set_registered_model_alias("churn", "prod", 1)
    found = find_model("models:/churn@prod", definition, tracking_uri=uri)
    assert found.origin == "models:/churn@prod"
    assert found.made_until is not None
    done = adopt(workspace, definition, found, trained_until=None, by="ana", reason="why", as_of=day(13))
    assert done.version.number == 1
    with pytest.raises(NotFoundError, match="models:/churn@other can't be read"):
        find_model("models:/churn@other", definition, tracking_uri=uri)


def test_pickles_only_by_name(workspace: Workspace, definition: ModelDefinition, tmp_path: Path) -> None:
    path = stored(tmp_path, team_model(), "team.joblib")
    with pytest.raises(
        DefinitionError, match=r"team.joblib is a pickle, which runs whatever it holds, and digits does"
    ):
        found_in(workspace, definition, path)
    allowed = define(workspace, classes=["odd", "even"], training={"allow_pickle": True})
    assert found_in(workspace, allowed, path).origin == "team.joblib"
    with pytest.raises(NotFoundError, match="there is no file"):
        found_in(workspace, definition, tmp_path / "absent.skops")


def test_what_does_not_fit_is_refused_by_name(workspace: Workspace) -> None:
    definition = define(workspace, classes=["odd", "even"])
    classes = Classes("odd", "even")
    frame = rows(0, 6)
    with pytest.raises(DataError, match="fitted on columns that are no features: surprise; the definition has ink_00"):
        matched(logistic(frame[["ink_00"]].rename(columns={"ink_00": "surprise"}), frame["even"]), definition, classes)
    with pytest.raises(DataError, match="fitted on 3 columns without names, and the definition has 17 features"):
        matched(
            LogisticRegression(max_iter=2000).fit(frame[NUMERIC[:3]].to_numpy(), frame["even"]), definition, classes
        )
    odd = logistic(frame[NUMERIC], np.where(frame["even"] == 1, "good", "bad"))
    with pytest.raises(DataError, match="the model answers bad, good, and"):
        matched(odd, definition, classes)
    with pytest.raises(DataError, match="which has no predict_proba"):
        matched(StandardScaler().fit(frame[NUMERIC]), definition, classes)
    numbers = frame.assign(shade=frame["shade"].map({"light": 1, "middle": 2, "dark": 3}).fillna(0))
    encoder = ColumnTransformer([("shade", OneHotEncoder(), ["shade"])], remainder="passthrough")
    with pytest.raises(DataError, match=r"learned shade as numbers or truth values.*Make shade a numeric feature"):
        matched(
            make_pipeline(encoder, LogisticRegression(max_iter=2000)).fit(numbers[COLUMNS], frame["even"]),
            definition,
            classes,
        )


def test_a_model_of_our_own_form_stays_as_it_is(workspace: Workspace) -> None:
    definition = define(workspace)
    given = list(definition.features.columns)
    prepare = ColumnTransformer([("shade", OneHotEncoder(), ["shade"])], remainder="passthrough")
    model = make_pipeline(prepare, LogisticRegression(max_iter=2000)).fit(rows(0, 6)[given], rows(0, 6)["even"])
    assert matched(model, definition, Classes("0", "1")) is model
    turned = matched(model, definition, Classes("1", "0"))
    assert isinstance(turned, Adopted)
    features = feature_frame(rows(6, 7), definition.features)
    np.testing.assert_array_equal(turned.predict_proba(features)[:, 1], model.predict_proba(features)[:, 0])
    plain = LogisticRegression(max_iter=2000).fit(rows(0, 6)[NUMERIC].to_numpy(), rows(0, 6)["even"])
    only = define(workspace, features={"numeric": NUMERIC, "categorical": []}, gate={"slices": []})
    wrapped = matched(plain, only, Classes("0", "1"))
    numbers = feature_frame(rows(6, 7), only.features)
    np.testing.assert_array_equal(wrapped.predict_proba(numbers), plain.predict_proba(rows(6, 7)[NUMERIC].to_numpy()))


def test_a_model_of_three_classes_in_another_order(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_model, "RAW", MANY)
    definition = define(workspace)
    add(workspace, definition, many_rows(0, 12), as_of=day(13), history=True)
    seen = many_rows(0, 6)
    order = sorted(LOOPS, reverse=True)  # two, one, none: the model counts them as "none" < "one" < "two"
    assert list(LOOPS) != order
    team = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(
        seen[NUMERIC], seen["loops"].map({name: f"{place}" for place, name in enumerate(order)})
    )
    with pytest.raises(DataError, match="the model answers 0, 1, 2, and the definition's classes are none, one, two"):
        adopt(
            workspace, definition, found_in(workspace, definition, stored(tmp_path, team, "coded.skops")),
            trained_until=day(6), by="ana", reason="it serves today", as_of=day(13),
        )  # fmt: skip
    team = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(seen[NUMERIC], seen["loops"])
    declared = define(workspace, classes=["two", "none", "one"])
    adopted = matched(team, declared, Classes("two", "none", "one"))
    probabilities = team.predict_proba(seen[NUMERIC])
    np.testing.assert_allclose(
        predict_score(adopted, feature_frame(seen, declared.features), "classification"), probabilities[:, [2, 0, 1]]
    )
    done = adopt(
        workspace, definition, found_in(workspace, definition, stored(tmp_path, team)), trained_until=day(6),
        by="ana", reason="it serves today", as_of=day(13),
    )  # fmt: skip
    assert workspace.registry.champion("loops") == done.version
    told = done.report.metrics
    assert told["challenger"]["accuracy"] > told["baseline"]["accuracy"] + 0.2
