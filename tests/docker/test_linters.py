"""What can't be tried everywhere is linted: Dockerfile, compose, every YAML, the alarms with when they fire."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial.settings import PROJECT_ROOT

pytestmark = pytest.mark.process
BIN = Path(sys.executable).parent
ALERTS = PROJECT_ROOT / "docker" / "prometheus" / "alerts.yaml"
# Each alarm: the series that make it fire, those that leave it calm, and after how many minutes. Values are promtool's.
SERIES: dict[str, tuple[dict[str, str], dict[str, str], int]] = {
    "PerennialApiDown": (
        {'up{job="perennial-api",instance="a"}': "0x60"}, {'up{job="perennial-api",instance="a"}': "1x60"}, 5,
    ),
    "PerennialNoApi": (
        {'up{job="perennial-api",instance="a"}': "0x60"}, {'up{job="perennial-api",instance="a"}': "1x60"}, 5,
    ),
    "PerennialErrors": (
        {'perennial_requests_total{model="m",status="200"}': "0+100x60",
         'perennial_requests_total{model="m",status="500"}': "0+2x60"},
        {'perennial_requests_total{model="m",status="200"}': "0+1000x60",
         'perennial_requests_total{model="m",status="500"}': "0+2x60"}, 20,
    ),
    "PerennialRefusedRequests": (
        {'perennial_requests_total{model="m",status="200"}': "0+90x60",
         'perennial_requests_total{model="m",status="422"}': "0+10x60"},
        {'perennial_requests_total{model="m",status="200"}': "0+98x60",
         'perennial_requests_total{model="m",status="422"}': "0+2x60"}, 45,
    ),
    "PerennialSlow": (
        {'perennial_request_seconds_bucket{model="m",le="0.5"}': "0+90x60",
         'perennial_request_seconds_bucket{model="m",le="1.0"}': "0+100x60",
         'perennial_request_seconds_bucket{model="m",le="+Inf"}': "0+100x60"},
        {'perennial_request_seconds_bucket{model="m",le="0.5"}': "0+100x60",
         'perennial_request_seconds_bucket{model="m",le="1.0"}': "0+100x60",
         'perennial_request_seconds_bucket{model="m",le="+Inf"}': "0+100x60"}, 30,
    ),
    "PerennialVersionRefused": (
        {'perennial_swaps_total{model="m",result="refused",instance="a"}': "0x5 1x60"},
        {'perennial_swaps_total{model="m",result="refused",instance="a"}': "1x60",
         'perennial_swaps_total{model="m",result="swapped",instance="a"}': "0+1x60"}, 10,
    ),
    "PerennialVersionsDiffer": (
        {'perennial_model_version{model="m",instance="a"}': "3x60",
         'perennial_model_version{model="m",instance="b"}': "4x60"},
        {'perennial_model_version{model="m",instance="a"}': "3x3 4x60",
         'perennial_model_version{model="m",instance="b"}': "4x60"}, 20,
    ),
    "PerennialRegistryDown": ({"perennial_registry_up": "0x60"}, {"perennial_registry_up": "1x60"}, 15),
    "PerennialLogFailing": ({"perennial_log_failing": "1x60"}, {"perennial_log_failing": "1x3 0x60"}, 10),
    "PerennialSpoolFilling": ({"perennial_spool_bytes": "600000000x60"}, {"perennial_spool_bytes": "500000000x60"}, 10),
    "PerennialRowsShed": (
        {'perennial_shed_rows_total{instance="a"}': "0x5 7x60"},
        {'perennial_shed_rows_total{instance="a"}': "7x60"}, 10,
    ),
    "PerennialUnseenCategories": (
        {'perennial_unseen_categories_total{model="m",column="c"}': "0+10x120",
         'perennial_rows_total{model="m",version="1",role="champion"}': "0+100x120"},
        {'perennial_unseen_categories_total{model="m",column="c"}': "0+2x120",
         'perennial_rows_total{model="m",version="1",role="champion"}': "0+100x120"}, 90,
    ),
    "PerennialDataBroken": (
        {'perennial_check_verdict{model="m",verdict="repair"}': "1x60"},
        {'perennial_check_verdict{model="m",verdict="repair"}': "0x60",
         'perennial_check_verdict{model="m",verdict="retrain"}': "1x60"}, 10,
    ),
    "PerennialQualityFallen": (
        {'perennial_check_loss{model="m",loss="mse"}': "1.3x120",
         'perennial_check_loss_at_promotion{model="m",loss="mse"}': "1x120"},
        {'perennial_check_loss{model="m",loss="mse"}': "1.2x120",
         'perennial_check_loss_at_promotion{model="m",loss="mse"}': "1x120"}, 90,
    ),
    "PerennialDrift": (
        {'perennial_check_drift_ratio{model="m"}': "2.5x120"},
        {'perennial_check_drift_ratio{model="m"}': "1.5x120"}, 90,
    ),
    "PerennialFewLabels": (
        {'perennial_check_label_coverage{model="m"}': "0.1x120"},
        {'perennial_check_label_coverage{model="m"}': "0.5x120"}, 90,
    ),
    "PerennialColumnGone": (
        {'perennial_column_missing_share{model="m",column="c"}': "1x120"},
        {'perennial_column_missing_share{model="m",column="c"}': "0.5x120"}, 90,
    ),
}  # fmt: skip


def lint(*command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfiles() -> None:
    lint(BIN / "hadolint", "docker/Dockerfile")


def test_compose_keeps_its_schema() -> None:
    lint(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")


def test_shell_scripts_have_no_error_of_syntax() -> None:
    for path in ("docker/postgres/databases.sh", "tests/system-packages.sh", "tests/docker/stand_ins/postgres.sh"):
        lint("bash", "-n", path)


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool: tests/system-packages.sh")
    return found


def test_prometheus_configuration(promtool: str, tmp_path: Path) -> None:
    folder = shutil.copytree(PROJECT_ROOT / "docker" / "prometheus", tmp_path / "prometheus")
    configuration = folder / "prometheus.yaml"
    (tmp_path / "token").touch()  # a secret, which is there in the container
    text = configuration.read_text(encoding="utf-8").replace("/tmp/metrics_token", str(tmp_path / "token"))
    configuration.write_text(text, encoding="utf-8")
    lint(promtool, "check", "config", configuration)


def alarms() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_each_alarm_says_what_it_means_and_what_to_do() -> None:
    assert [rule["alert"] for rule in alarms()] == list(SERIES)
    for rule in alarms():
        assert {"summary", "action"} <= set(rule["annotations"])
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_each_alarm_fires_when_it_should_and_is_calm_otherwise(promtool: str, tmp_path: Path) -> None:
    tests = []
    for alarm, (firing, calm, minutes) in SERIES.items():
        for series, times in ((firing, 1), (calm, 0)):
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{alarm}",alertstate="firing"}}) or vector(0)',
                            "eval_time": f"{minutes}m",
                            "exp_samples": [{"labels": "{}", "value": times}],
                        }
                    ],
                }
            )
    file = tmp_path / "alerts_test.yaml"
    whole = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    lint(promtool, "test", "rules", file)
