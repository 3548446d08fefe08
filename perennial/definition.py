"""A model's whole definition, as one YAML says it: pydantic models, unknown keys forbidden. No I/O beyond reading it.

`load_definition(path)` gives a `ModelDefinition`; every error names the file, the key, the value, the
rule and the remedy. `ModelDefinition.hash` is the definition's version: the digest of its canonical JSON.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from perennial.errors import DefinitionError

# Files beside the definitions that define no model.
AUTOMATIONS_FILE = "automations.yaml"
NOT_MODELS = ("prefect.yaml", AUTOMATIONS_FILE)
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\s*$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _parse_duration(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.match(value)
        if not match:
            raise ValueError("a duration is a number and a unit: 30s, 15m, 12h, 7d or 2w")
        try:
            return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
        except OverflowError:
            raise ValueError("a duration is at most 999999999d") from None
    if isinstance(value, timedelta):
        return value
    raise ValueError("a duration is a number and a unit: 30s, 15m, 12h, 7d or 2w")


def duration_text(value: timedelta) -> str:
    """`7d`, `12h`, `90s`: the shortest whole spelling of a duration, the one that the YAML takes."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["7d", "12h"]}),
]
Share = Annotated[float, Field(ge=0, le=1)]


def _check_cron(value: object) -> object:
    fields = value.split() if isinstance(value, str) else []
    if len(fields) != 5 or not all(re.fullmatch(r"[\d*/,\-A-Za-z#?L]+", field) for field in fields):
        raise ValueError('a schedule is a cron expression of five fields, such as "0 6 * * *"')
    return value


Cron = Annotated[str, BeforeValidator(_check_cron)]


class Section(BaseModel):
    """The base of every part of a definition: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Source(Section):
    """Where rows come from: exactly one of the kinds."""

    parquet: str | None = Field(None, description="A path or glob, local or s3://, relative to this file.")
    csv: str | None = Field(None, description="A path or glob, local or s3://, relative to this file.")
    delta: str | None = Field(None, description="A Delta table's path or URL.")
    sql: str | None = Field(None, description="A SELECT; :start and :end are bound to the wanted range of time.")
    loader: str | None = Field(
        None, description='"file.py:function", called as function(start, end, **options) for a DataFrame.'
    )
    url_env: str | None = Field(None, description="The environment variable with the database URL, for sql.")
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments for the loader.")

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        given = [kind for kind in ("parquet", "csv", "delta", "sql", "loader") if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of parquet, csv, delta, sql, loader; found {given or 'none'}")
        if self.sql and not self.url_env:
            raise ValueError("sql needs url_env: the name of the environment variable that holds the database URL")
        if self.loader and not re.fullmatch(r"[^:]+\.py:\w+", self.loader):
            raise ValueError('a loader is "file.py:function"')
        return self


class Data(Section):
    """The rows: where from, who they are, when they happened, and when their truth is known."""

    source: Source
    id: str = Field(description="The column that names a row, unique over all time.")
    time: str = Field(description="The column with the event's time; naive values are taken as UTC.")
    target: str = Field(description="The column with the truth.")
    label_delay: Duration = Field(timedelta(0), description="How long after the event the truth is known.")


class Features(Section):
    """The columns that the model reads, by kind."""

    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    image: tuple[str, ...] = Field((), description="Columns of image paths or bytes.")

    @property
    def columns(self) -> tuple[str, ...]:
        return self.numeric + self.categorical + self.text + self.image

    @model_validator(mode="after")
    def _distinct(self) -> Features:
        if not self.columns:
            raise ValueError("a model needs at least one feature")
        if hidden := [name for name in self.columns if name.startswith("_")]:
            raise ValueError(f"names that start with an underscore are ours: {', '.join(hidden)}")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise ValueError(f"each feature has one kind; named twice: {', '.join(twice)}")
        return self


CLASSIFICATION_METRICS = ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "balanced_accuracy", "f1")
REGRESSION_METRICS = ("rmse", "mae", "mse", "r2", "median_absolute_error")
GREATER_IS_BETTER = frozenset({"roc_auc", "average_precision", "accuracy", "balanced_accuracy", "f1", "r2"})
ESTIMATORS = ("hist_gradient_boosting", "random_forest", "linear")


class Tuning(Section):
    """How hyperparameters are searched: whichever of trials and seconds runs out first ends the search."""

    trials: int = Field(20, ge=0, description="0 keeps the given parameters.")
    seconds: float | None = Field(120, gt=0)
    metric: str | None = Field(None, description="Default: log_loss or rmse.")
    folds: int = Field(1, ge=1, le=10, description="Time-ordered validation blocks, newest last.")
    validation_share: float = Field(0.2, gt=0, lt=0.9)
    workers: int = Field(2, ge=1, description="Trials evaluated at once; part of the result's identity.")


class Training(Section):
    """What a new challenger learns from, and how."""

    window: Duration | None = Field(None, description="How far back rows are used; all of them by default.")
    minimum_rows: int = Field(500, ge=10, description="Fewer labelled rows than this refuse the training.")
    estimator: str = Field("hist_gradient_boosting", description=f"{', '.join(ESTIMATORS)} or file.py:function.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Fixed parameters of the estimator.")
    tuning: Tuning = Tuning()
    seed: int = 0
    trusted_types: tuple[str, ...] = Field((), description="Types that a custom estimator may be loaded with.")
    allow_pickle: bool = Field(False, description="Let a custom estimator be stored as a pickle.")

    @field_validator("estimator")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ESTIMATORS and not re.fullmatch(r"[^:]+\.py:\w+", value):
            raise ValueError(f'an estimator is one of {", ".join(ESTIMATORS)}, or "file.py:function"')
        return value


class Limit(Section):
    """An absolute bound on a metric."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> Limit:
        if self.min is None and self.max is None:
            raise ValueError("a limit needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


Doubt = Literal["keep", "promote"]


class GatePolicy(Section):
    """On what evidence a challenger is let past."""

    metric: str | None = Field(None, description="The metric compared; default: log_loss or mse.")
    limits: dict[str, Limit] = Field(default_factory=dict)
    margin: float = Field(
        0.02, ge=0, description="How much worse, as a share of the champion's loss, still counts as not worse."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the two-sided interval of a difference.")
    doubt: Doubt = Field(
        "keep",
        description="Where a challenger may be better or worse: keep the champion, or let it in, on probation.",
    )
    resamples: int = Field(2000, ge=100)
    holdout_share: float = Field(0.2, gt=0, lt=0.9, description="The newest share of the labelled rows, at most.")
    holdout_window: Duration | None = Field(None, description="Instead of a share: this much of the newest time.")
    minimum_rows: int = Field(200, ge=1, description="Fewer holdout rows than this are insufficient evidence.")
    slices: tuple[str, ...] = ()
    slice_margin: float = Field(0.05, ge=0, description="A slice that is surely worse, and by more than this, blocks.")
    slice_minimum_rows: int = Field(200, ge=1)
    calibration_error: float | None = Field(None, gt=0, description="Most expected calibration error allowed.")
    calibration_margin: float = Field(
        0.02, ge=0, description="Without calibration_error: surely worse calibrated, and by more than this, blocks."
    )
    implausible_share: Share = Field(
        0.2, description="Less than this share of the champion's and the baseline's loss is too good; 0 allows all."
    )
    leakage_separation: float | None = Field(
        0.999, gt=0.5, le=1, description="Scores, or one feature, that tell the truth this well (AUC or R²) are a leak."
    )
    golden_tolerance: float = Field(1e-6, ge=0, description="Largest difference of a golden prediction.")
    latency_ms: float | None = Field(None, gt=0, description="Most milliseconds for one row, median.")
    size_mb: float | None = Field(None, gt=0)
    approval: Literal["automatic", "human"] = "automatic"
    probation: Duration = Field(
        timedelta(days=28), description="So long after a promotion the former champion is scored in the shadow."
    )
    approval_expires: Duration = Field(timedelta(days=14), description="A challenger waits no longer for a person.")


def _parse_persistence(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s+of\s+(\d+)\s*", value)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError('persistence is "k of n" with 1 ≤ k ≤ n, such as "2 of 3"')
        return (int(match[1]), int(match[2]))
    return value


Persistence = Annotated[
    tuple[int, int],
    BeforeValidator(_parse_persistence),
    PlainSerializer(lambda value: f"{value[0]} of {value[1]}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+ of \d+$"}),
]


class Triggers(Section):
    """Which signals may ask for a retraining."""

    quality: bool = True
    drift: bool = Field(True, description="Where mature labels can't judge; see drift_alone.")
    growth: bool = True
    schedule: bool = Field(True, description="Works with maximum_age.")
    estimate: bool = Field(
        False,
        description="The loss estimated without labels, where they can't judge and it proved better than guessing.",
    )


class Monitoring(Section):
    """When the champion is checked, and the policy that turns signals into a verdict."""

    schedule: Cron | None = None
    window: Duration = timedelta(days=7)
    mature_windows: int = Field(1, ge=1, description="Newest mature windows that a recalibration is fitted on.")
    minimum_rows: int = Field(100, ge=1, description="Fewer rows than this judge neither quality nor drift.")
    minimum_coverage: Share = Field(0.5, description="Least share of mature predictions with labels to judge quality.")
    false_alarm_rate: float = Field(0.01, gt=0, lt=0.5, description="Drift alarms per check where nothing drifts.")
    persistence: Persistence = Field((2, 3), description="In how many of the last checks a signal must fire to act.")
    extreme: float = Field(2.0, gt=1, description="So many times its limit, a signal acts at once.")
    cooldown: Duration = timedelta(days=7)
    retrains_per_month: int = Field(6, ge=0, description="At most, in any 30 days.")
    growth: float = Field(1.4, gt=1, description="Retrain when labelled rows are this many times those trained on.")
    quality_sigmas: float = Field(2.5, gt=0, description="Standard errors by which loss must rise.")
    recalibrate: bool = Field(True, description="Refit the score's map when that is proven to help.")
    recalibration_sigmas: float = Field(1.0, ge=0, description="Standard errors by which a new map must help.")
    recalibration_strength: float = Field(
        0.7, gt=0, le=1, description="How much of the way to the newest labels' map is gone: windows differ."
    )
    recalibration_cooldown: Duration = Field(timedelta(days=7), description="Least time between two recalibrations.")
    drift_alone: Literal["blind", "always"] = Field(
        "blind", description="Let drift ask for a retraining only where labels can't judge, or always."
    )
    label_patience: Duration = Field(
        timedelta(days=28),
        description="Labels that come later than this are not waited for: drift may act before them.",
    )
    backoff: float = Field(1.5, ge=1, description="After a fruitless retraining, the bar for the next is this higher.")
    maximum_age: Duration | None = Field(None, description="Retrain a champion whose training data ended so long ago.")
    triggers: Triggers = Triggers()
    stale_after: Duration | None = Field(None, description="No new rows for this long is a dead feed; default: window.")
    report_rows: int = Field(5000, ge=100, description="Rows sampled for the Evidently report.")


class Schedule(Section):
    """A cron schedule, in UTC; none means on request only."""

    schedule: Cron | None = None


def _parse_percent(value: object) -> object:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    return float(match[1]) / 100 if match else value


Percent = Annotated[float, BeforeValidator(_parse_percent), Field(ge=0, le=1)]


class Serving(Section):
    """How the champion answers over the API."""

    control_group: Percent = Field(0.0, description="Share of ids marked for the application to leave untreated.")
    canary: Percent = Field(0.0, description="Share of ids that the `candidate` answers, sticky by id.")
    shadow: Percent = Field(0.0, description="Share of ids that the `candidate` scores too, off the request's path.")
    candidate: Literal["challenger", "previous"] = Field("challenger", description="Who gets canary and shadow.")
    salt: str = Field("", description="Changes who is in the groups; default: the model's name.")
    threshold: float = Field(0.5, gt=0, lt=1, description="From this probability on the label is 1.")
    output: Literal["probability", "label", "both"] = Field("probability", description="What requests get by default.")
    log_share: Percent = Field(1.0, description="Share of ids whose predictions are logged.")
    redact: tuple[str, ...] = Field((), description="Features that are left out of the log; images always are.")


_DASK = re.compile(r"local|\$[A-Za-z_]\w*|(tcp|tls|ws|wss)://[^\s/]+:\d+")


class Runner(Section):
    """Where trials, backtests, large scorings and large checks are computed; results are the same everywhere."""

    dask: str = Field(
        description="A Dask scheduler, tcp://HOST:PORT or tls://HOST:PORT; $NAME of an environment variable that "
        "holds one; or local: one process a core of this machine."
    )
    timeout: Duration = Field(
        timedelta(seconds=60), description="So long the scheduler, and a worker where it has none, are waited for."
    )

    @field_validator("dask")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not _DASK.fullmatch(value):
            raise ValueError("an address is tcp://HOST:PORT, tls://HOST:PORT, $VARIABLE or local")
        return value


class ModelDefinition(Section):
    """One model, whole: what `deployments/NAME.yaml` says."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Lowercase letters, digits and dashes.")
    description: str = ""
    task: Literal["classification", "regression"]
    positive: str | None = Field(None, description="The positive class of a two-class target; default: the greater.")
    data: Data
    features: Features
    training: Training = Training()
    gate: GatePolicy = GatePolicy()
    monitoring: Monitoring = Monitoring()
    retraining: Schedule = Schedule()
    ingestion: Schedule = Schedule()
    scoring: Schedule = Schedule()
    serving: Serving = Serving()
    runner: Runner | None = Field(None, description="A cluster for heavy steps; this process by default.")
    path: Path | None = Field(None, exclude=True, description="Set by the loader, never in the YAML.")

    @model_validator(mode="after")
    def _consistent(self) -> ModelDefinition:
        known = CLASSIFICATION_METRICS if self.task == "classification" else REGRESSION_METRICS
        named = [*self.gate.limits, self.gate.metric, self.training.tuning.metric]
        for metric in named:
            if metric is not None and metric not in known:
                raise ValueError(f"{metric!r} is no metric of {self.task}; known: {', '.join(known)}")
        reserved = {self.data.id, self.data.time, self.data.target}
        if clash := sorted(reserved & set(self.features.columns)):
            raise ValueError(f"id, time and target can't be features: {', '.join(clash)}")
        if missing := sorted(set(self.gate.slices) - set(self.features.columns)):
            raise ValueError(f"gate.slices must be features: {', '.join(missing)}")
        return self

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
        """The definition's version: 16 hex digits of its canonical JSON's SHA-256. Where it is computed is no part."""
        canonical = json.dumps(self.model_dump(mode="json", exclude={"runner"}), sort_keys=True, separators=(",", ":"))
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


def load_definition(path: Path) -> ModelDefinition:
    """Read one definition.

    Raises:
        DefinitionError: The file can't be read, is no YAML mapping, or breaks a rule; all of them are named.
    """
    definition = _validated(read_mapping(path), path)
    if definition.name != path.stem:
        raise DefinitionError(
            f"{path}: name: {definition.name!r} differs from the file's name", f"Name the file {definition.name}.yaml"
        )
    return definition.model_copy(update={"path": path.resolve()})


def load_policy(path: Path, definition: ModelDefinition) -> Monitoring:
    """Read a monitoring policy: a YAML of the keys of a definition's `monitoring`, or with that key above them.

    What the file leaves out is as in the model's definition.

    Raises:
        DefinitionError: As `load_definition`, the keys named as they are in a definition.
    """
    found = read_mapping(path, start="the keys of `monitoring`, such as `growth: 1.5`")
    if set(found) == {"monitoring"} and isinstance(found["monitoring"], dict):
        found = found["monitoring"]
    raw = definition.model_dump(mode="json")
    triggers = found.get("triggers")
    if isinstance(triggers, dict):
        found = found | {"triggers": raw["monitoring"]["triggers"] | triggers}
    return _validated(raw | {"monitoring": raw["monitoring"] | found}, path).monitoring


def read_mapping(path: Path, start: str = "`name: NAME`") -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        DefinitionError: The file can't be read or holds something else.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DefinitionError(f"{path}: can't be read: {error.strerror}", "Give the path of a definition") from error
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path}: is not UTF-8: {error}", "Save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path}: is not YAML: {' '.join(str(error).split())}", "Mend the syntax") from error
    if not isinstance(raw, dict):
        raise DefinitionError(f"{path}: holds {type(raw).__name__}, not a mapping", f"Start it with {start}")
    return raw


def _validated(raw: dict[str, Any], path: Path) -> ModelDefinition:
    if "path" in raw:
        raise DefinitionError(f"{path}: path: unknown key", "Remove it")
    try:
        return ModelDefinition.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(_describe(item) for item in error.errors())
        raise DefinitionError(f"{path}: {problems}") from error


def load_definitions(folders: list[Path]) -> dict[str, ModelDefinition]:
    """All definitions in the folders, by name.

    Raises:
        DefinitionError: A folder is missing, a definition is wrong, or two have one name.
    """
    found: dict[str, ModelDefinition] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DefinitionError(f"the models' folder {folder} does not exist", "Make it, or set PERENNIAL_MODELS")
        for path in sorted(folder.glob("*.yaml")):
            if path.name in NOT_MODELS:
                continue
            definition = load_definition(path)
            if definition.name in found:
                raise DefinitionError(
                    f"{path}: name: {definition.name!r} is taken by {found[definition.name].path}", "Rename one"
                )
            found[definition.name] = definition
    return found


def _describe(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "the whole"
    value = item.get("input")
    shown = f" = {value!r}" if isinstance(value, str | int | float | bool) or value is None else ""
    if item["type"] == "missing":
        return f"{key}: is required. Add it"
    if item["type"] == "extra_forbidden":
        return f"{key}{shown}: unknown key. {_nearest(item['loc'])}"
    rule = item["msg"].removeprefix("Value error, ")
    return f"{key}{shown}: {rule[0].lower() + rule[1:]}. Correct the value"


def _nearest(location: tuple[Any, ...]) -> str:
    section: Any = ModelDefinition
    for part in location[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        # Of a mapping, such as gate.limits, the part is any key and the section its values' type.
        section = field.annotation if field else get_args(section)[-1] if get_origin(section) is dict else None
        # Of an optional section, such as runner, the section.
        if get_origin(section) is not dict:
            section = next((kind for kind in get_args(section) if hasattr(kind, "model_fields")), section)
    names = [name for name in getattr(section, "model_fields", {}) if name != "path"]
    near = difflib.get_close_matches(str(location[-1]), names, n=1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Remove it; known here: {', '.join(names)}" if names else "Remove it"
