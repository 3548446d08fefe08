"""A model's definition as a whole, its hash and its JSON schema. No file is read here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from perennial.definition.data import Data, Features
from perennial.definition.gate import GatePolicy
from perennial.definition.monitoring import Monitoring
from perennial.definition.retention import Retention
from perennial.definition.review import Review
from perennial.definition.serving import Serving
from perennial.definition.told import Alerts, Card, Segments
from perennial.definition.training import CLASSIFICATION_METRICS, REGRESSION_METRICS, Runner, Training
from perennial.definition.values import MOST_CLASSES, ClassName, Schedule, Section
from perennial.definition.watch import Watch


class ModelDefinition(Section):
    """One model, whole: what `deployments/NAME.yaml` says."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Lowercase letters, digits and dashes.")
    description: str = ""
    task: Literal["classification", "regression"]
    classes: tuple[ClassName, ...] = Field(
        (),
        description="The target's classes, in the order in which they are answered, of two the positive one last; "
        "default: learnt from the first truths.",
    )
    positive: ClassName | None = Field(
        None,
        description="Of two classes the positive one, coded as 1; default: the last of `classes`, else the greater.",
    )
    data: Data
    features: Features
    training: Training = Training()
    gate: GatePolicy = GatePolicy()
    monitoring: Monitoring = Monitoring()
    retraining: Schedule = Schedule()
    ingestion: Schedule = Schedule()
    scoring: Schedule = Schedule()
    serving: Serving = Serving()
    review: Review = Review()
    retention: Retention = Retention()
    card: Card = Card()
    segments: Segments | None = Field(None, description="A search for weak segments; none by default.")
    alerts: Alerts | None = Field(None, description="What people are told of; nothing by default.")
    watch: Watch | None = Field(None, description="What the model stands on; nothing is watched by default.")
    runner: Runner | None = Field(None, description="A cluster for heavy steps; this process by default.")
    path: Path | None = Field(None, exclude=True, description="Set by the loader, never in the YAML.")

    @model_validator(mode="after")
    def _consistent(self) -> ModelDefinition:
        known = CLASSIFICATION_METRICS if self.task == "classification" else REGRESSION_METRICS
        named = [*self.gate.limits, self.gate.metric, self.training.tuning.metric]
        for metric in named:
            if metric is not None and metric not in known:
                raise ValueError(f"{metric!r} is no metric of {self.task}; known: {', '.join(known)}")
        self._require_classes()
        if self.watch and self.watch.schedule and not (self.alerts and "watch" in self.alerts.about):
            raise ValueError(
                "watch.schedule would tell nobody what it finds: write `alerts: {}`, with watch in its about"
            )
        # A part of an id, such as a store beside a day, may be known to the model; a whole id may not.
        reserved = {self.data.time, self.data.target, *((self.data.id,) if isinstance(self.data.id, str) else ())}
        if clash := sorted(reserved & set(self.features.columns)):
            raise ValueError(f"id, time and target can't be features: {', '.join(clash)}")
        if clash := sorted(reserved & {name for name in (self.training.weights, self.training.groups) if name}):
            raise ValueError(f"id, time and target can't be training.weights or training.groups: {', '.join(clash)}")
        features = self.features
        others = (*features.categorical, *features.text, *features.image, *features.boolean, *features.datetime)
        if self.training.weights in others:
            raise ValueError(f"training.weights must hold numbers: {self.training.weights}")
        if self.review.tolerance and self.task != "regression":
            raise ValueError("review.tolerance belongs to task: regression")
        if missing := sorted(set(self.gate.slices) - set(self.features.columns)):
            raise ValueError(f"gate.slices must be features: {', '.join(missing)}")
        named_segments = set(self.segments.among if self.segments else ())
        if missing := sorted(named_segments - {*features.numeric, *features.categorical, *features.boolean}):
            raise ValueError(f"segments.among must be numeric, categorical or boolean features: {', '.join(missing)}")
        return self

    def _require_classes(self) -> None:
        if self.task != "classification" and (self.classes or self.positive is not None):
            raise ValueError("classes and positive belong to task: classification")
        if self.task != "classification" and self.serving.cost is not None:
            raise ValueError("serving.cost belongs to task: classification")
        if self.task == "classification" and self.serving.interval is not None:
            raise ValueError("serving.interval belongs to task: regression")
        if twice := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            raise ValueError(f"classes: {', '.join(twice)} is named twice")
        if len(self.classes) == 1 or len(self.classes) > MOST_CLASSES:
            raise ValueError(f"classes: a target has two to {MOST_CLASSES}, not {len(self.classes)}")
        if self.classes and self.positive is not None and self.positive not in self.classes:
            raise ValueError(f"positive: {self.positive!r} is none of classes: {', '.join(self.classes)}")
        if len(self.classes) > 2:
            self._require_for_many()

    def _require_for_many(self) -> None:
        """Refuse by name what has no meaning with more than two classes."""
        if self.positive is not None:
            raise ValueError(f"positive: of {len(self.classes)} classes none is the positive one; leave it out")
        if "threshold" in self.serving.model_fields_set:
            raise ValueError("serving.threshold belongs to two classes; of more, the likeliest is the label")
        if self.serving.cost is not None:
            raise ValueError("serving.cost belongs to two classes; of more, the likeliest is the label")

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns that are kept with the rows for training, and are no features: weights and groups."""
        named = (self.training.weights, self.training.groups)
        return tuple(dict.fromkeys(name for name in named if name and name not in self.features.columns))

    @property
    def loss(self) -> str:
        """The metric that the gate and the monitor compare: smaller is better for the defaults."""
        return self.gate.metric or ("log_loss" if self.task == "classification" else "mse")

    @property
    def tuning_metric(self) -> str:
        return self.training.tuning.metric or ("log_loss" if self.task == "classification" else "rmse")

    @property
    def folder(self) -> Path:
        """Where the YAML lies: relative paths in it start here."""
        return self.path.parent if self.path else Path()

    @property
    def hash(self) -> str:
        """The definition's version: 16 hex digits of its canonical JSON's SHA-256. What changes no answer is no part.

        That is where it is computed, how long things are kept, what people look at (what they say is data), and what
        they are told.
        """
        said = self.model_dump(
            mode="json", exclude={"runner", "retention", "review", "card", "alerts", "watch", "segments"}
        )
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def json_schema() -> dict[str, Any]:
    """The JSON schema of a definition, for editors: what `deployments/model.schema.json` holds."""
    schema = ModelDefinition.model_json_schema()
    schema["properties"].pop("path")
    for section in Section.__subclasses__():
        described = schema if section is ModelDefinition else schema["$defs"].get(section.__name__, {})
        for name, field in section.model_fields.items():
            if "default" in described.get("properties", {}).get(name, {}):
                annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
                described["properties"][name]["default"] = TypeAdapter(annotation).dump_python(
                    field.default, mode="json"
                )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
