"""A model's whole definition, as one YAML says it: pydantic models, unknown keys forbidden. No I/O beyond reading it.

`load_definition(path)` gives a `ModelDefinition`; every error names the file, the key, the value, the
rule and the remedy. `ModelDefinition.hash` is the definition's version: the digest of its canonical JSON.
"""

from perennial.definition.data import Data, Features, Source
from perennial.definition.gate import Doubt, GatePolicy, Limit
from perennial.definition.model import ModelDefinition, json_schema
from perennial.definition.monitoring import Monitoring, Persistence, Triggers
from perennial.definition.reading import (
    AUTOMATIONS_FILE,
    NOT_MODELS,
    load_definition,
    load_definitions,
    load_policy,
    read_mapping,
)
from perennial.definition.retention import Retention
from perennial.definition.review import Review
from perennial.definition.serving import Cost, Serving
from perennial.definition.told import AlertKind, Alerts, Card, Segments
from perennial.definition.training import (
    CLASSIFICATION_METRICS,
    ESTIMATORS,
    GREATER_IS_BETTER,
    REGRESSION_METRICS,
    Runner,
    Training,
    Tuning,
)
from perennial.definition.values import Cron, Duration, Percent, Schedule, Section, Share, duration_text

__all__ = [
    "AUTOMATIONS_FILE",
    "CLASSIFICATION_METRICS",
    "ESTIMATORS",
    "GREATER_IS_BETTER",
    "NOT_MODELS",
    "REGRESSION_METRICS",
    "AlertKind",
    "Alerts",
    "Card",
    "Cost",
    "Cron",
    "Data",
    "Doubt",
    "Duration",
    "Features",
    "GatePolicy",
    "Limit",
    "ModelDefinition",
    "Monitoring",
    "Percent",
    "Persistence",
    "Retention",
    "Review",
    "Runner",
    "Schedule",
    "Section",
    "Segments",
    "Serving",
    "Share",
    "Source",
    "Training",
    "Triggers",
    "Tuning",
    "duration_text",
    "json_schema",
    "load_definition",
    "load_definitions",
    "load_policy",
    "read_mapping",
]
