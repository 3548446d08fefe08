"""What flows and the serving API share: definition, settings, tables, registry, errors; the API; the command line."""

import os

from perennial.surroundings import spare_loopback

__version__ = "0.1.0"

# Every dependency's telemetry is off, and its noise, before any of them is imported.
for _name, _value in {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)

# Idle OpenMP threads sleep instead of spinning: on a busy machine a spinning fit takes many times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Before any client reads it: who speaks to a server on this machine asks no proxy.
spare_loopback(os.environ)
