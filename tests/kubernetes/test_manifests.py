"""The manifests as `kustomize build` makes them, by the strict schema; and what no schema asks for."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml

from perennial.settings import PROJECT_ROOT, Settings

pytestmark = pytest.mark.k8s
FOLDER = PROJECT_ROOT / "docker" / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
KUBERNETES = "1.34"
# The Secrets that the README of the folder has people make, with their keys; None stands for any of a user's choice.
SECRETS = {
    "perennial-secrets": {"PREFECT_API_AUTH_STRING", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "perennial-servers": {"PREFECT_DATABASE_URL", "MLFLOW_DATABASE_URL"},
    "perennial-serving": {"PERENNIAL_SERVING_TOKENS"},
    "perennial-automations": None,
}


@cache
def build(overlay: str) -> list[dict[str, Any]]:
    command = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    if not shutil.which(command[0]):
        pytest.skip("neither kustomize nor kubectl is installed")
    made = subprocess.run([*command, str(FOLDER / "overlays" / overlay)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    return list(yaml.safe_load_all(made.stdout))


def pods(overlay: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in build(overlay):
        if item["kind"] == "Deployment":
            yield item["metadata"]["name"], item["spec"]["template"]["spec"]
    template = json.loads((FOLDER / "base" / "job-template.json").read_text())
    yield "run", template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_by_the_strict_schema(overlay: str) -> None:
    documents = build(overlay)
    assert {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "Role"} <= {
        item["kind"] for item in documents
    }
    for item in documents:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)


def test_the_schema_is_strict() -> None:
    (deployment, *_) = [item for item in build("small") if item["kind"] == "Deployment"]
    wrong = deployment | {"spec": deployment["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_every_pod_is_confined(overlay: str) -> None:
    for name, pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] == 10001, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is (name == "worker"), name
        assert pod["serviceAccountName"] != "default", name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/tmp", "/var/lib/perennial"} <= mounts, name


def test_servers_are_probed(overlay: str) -> None:
    for name, pod in pods(overlay):
        for container in pod["containers"] if name != "run" else []:
            wanted = {"startupProbe", "livenessProbe"} | ({"readinessProbe"} if name != "worker" else set())
            assert wanted <= container.keys(), name


def test_secrets_are_named_and_never_said(overlay: str) -> None:
    assert not [item for item in build(overlay) if item["kind"] == "Secret"]
    named: dict[str, set[str]] = {}
    for name, pod in pods(overlay):
        for container in containers(pod):
            for entry in container["env"] if isinstance(container["env"], list) else []:
                told = any(
                    word in entry["name"] for word in ("AUTH_STRING", "TOKEN", "SECRET_ACCESS", "CONNECTION_URL")
                )
                if told and not entry["name"].startswith("PREFECT_INTEGRATIONS"):
                    assert "value" not in entry, f"{name}: {entry['name']} in clear text"
                if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                    named.setdefault(reference["name"], set()).add(reference["key"])
            for source in container.get("envFrom", []):
                if "secretRef" in source and "{{" not in source["secretRef"]["name"]:
                    named.setdefault(source["secretRef"]["name"], set())
    assert named.keys() == SECRETS.keys()
    for secret, keys in named.items():
        assert keys <= (SECRETS[secret] or set()), secret
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for secret, known in SECRETS.items():
        assert f"`{secret}`" in readme
        assert all(f"`{key}`" in readme for key in known or ())


def test_images_are_ours_and_runs_get_the_workers(overlay: str) -> None:
    images = {container["image"] for _, pod in pods(overlay) for container in containers(pod)} - {"{{ image }}"}
    assert {image.split(":")[0] for image in images} == {"perennial-server", "perennial-serving", "perennial-worker"}
    assert all(":" in image and not image.endswith(":latest") for image in images)
    worker = dict(pods(overlay))["worker"]
    (deploy,) = worker["initContainers"]
    environment = {entry["name"]: entry.get("value") for entry in deploy["env"]}
    assert environment["PERENNIAL_IMAGE"] == worker["containers"][0]["image"] == deploy["image"]


def test_the_worker_may_do_little(overlay: str) -> None:
    assert not [item for item in build(overlay) if item["kind"].startswith("Cluster")]
    (role,) = [item for item in build(overlay) if item["kind"] == "Role"]
    assert "*" not in json.dumps(role["rules"])
    touched = {name for rule in role["rules"] for name in rule["resources"]}
    assert touched == {"jobs", "pods", "pods/log", "events"}
    (binding,) = [item for item in build(overlay) if item["kind"] == "RoleBinding"]
    assert [subject["name"] for subject in binding["subjects"]] == ["perennial-worker"]


def test_nothing_is_reached_but_what_is_named(overlay: str) -> None:
    policies = {item["metadata"]["name"]: item["spec"] for item in build(overlay) if item["kind"] == "NetworkPolicy"}
    assert policies["nothing"]["podSelector"] == {}
    assert set(policies["nothing"]["policyTypes"]) == {"Ingress", "Egress"}
    assert {"ingress", "egress"} & policies["nothing"].keys() == set()
    labels = [item["spec"]["template"]["metadata"]["labels"] for item in build(overlay) if item["kind"] == "Deployment"]
    run = json.loads((FOLDER / "base" / "job-template.json").read_text())["job_configuration"]["job_manifest"]
    labels.append(run["spec"]["template"]["metadata"]["labels"])
    for name, spec in policies.items():
        selector = spec["podSelector"].get("matchLabels", {})
        assert any(selector.items() <= given.items() for given in labels), f"{name} selects no pod"


def test_the_settings_exist(overlay: str) -> None:
    (config,) = [
        item for item in build(overlay) if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "perennial"
    ]
    ours = [key.removeprefix("PERENNIAL_").lower() for key in config["data"] if key.startswith("PERENNIAL_")]
    assert ours
    assert set(ours) <= set(Settings.model_fields)
