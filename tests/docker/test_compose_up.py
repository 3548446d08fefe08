"""docker/compose.yaml really comes up, in stages, and a retrain runs end to end inside it, driven from the laptop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import engine
import pytest
import yaml

pytestmark = [
    pytest.mark.oci,
    pytest.mark.long,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(bool(engine.why_not()), reason=engine.why_not()),
    pytest.mark.usefixtures("tidy"),
]
PROJECT = "perennial-tried"
DRIVING_SECONDS, ENDING_SECONDS = 1500, 200
IN_A_WORLD_OF_ITS_OWN = ["unshare", "--net", "--mount", "--propagation", "private", "bash", "-ec"]


def adapt(compose: Path) -> None:
    """A name of its own, since all of the project is deleted afterwards; and Postgres' sockets on a volume.

    Debian's podman has a tmpfs on /run, below which its runc forgets the mode of another; Docker has none there.
    """
    data, sockets = "- postgres:/var/lib/postgresql/data\n", ', "/run/postgresql:mode=1777"'
    text = compose.read_text(encoding="utf-8")
    for old, new in (
        ("name: perennial\n", f"name: {PROJECT}\n"),
        (sockets, ""),
        (data, f"{data}      - /run/postgresql\n"),
    ):
        assert old in text
        text = text.replace(old, new)
    compose.write_text(text, encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's folders with one small model in them, and fresh secrets."""
    import small_model

    for name in ("docker", "deployments", "expectations"):
        shutil.copytree(engine.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".env"))
    for path in [*(tmp_path / "deployments").glob("*.yaml"), *(tmp_path / "expectations").glob("*.json")]:
        path.unlink()
    (tmp_path / "deployments" / "digits.yaml").write_text(yaml.safe_dump(small_model.RAW), encoding="utf-8")
    (tmp_path / "expectations" / "digits.json").write_text(json.dumps(small_model.SUITE), encoding="utf-8")
    adapt(tmp_path / "docker" / "compose.yaml")
    made = subprocess.run([engine.ROOT / "docker" / "make-env"], capture_output=True, text=True, check=True)
    (tmp_path / "docker" / ".env").write_text(made.stdout, encoding="utf-8")
    (tmp_path / "laptop").mkdir()
    tmp_path.chmod(0o755)
    return tmp_path


def test_it_comes_up_and_a_retrain_runs_in_it(project: Path) -> None:
    for target in engine.TARGETS:
        engine.build_image(target)
    engine.make_stand_ins()
    driver = Path(__file__).with_name("compose_driver.py")
    inner = 'ip link set lo up; mount -t tmpfs tmpfs /run; exec "$@"'
    command = [*IN_A_WORLD_OF_ITS_OWN, inner, "-", sys.executable, str(driver), str(project)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=engine.environment()
    ) as running:
        try:
            out, err = running.communicate(timeout=DRIVING_SECONDS)
        except BaseException:  # whatever ends this test ends the project too
            running.terminate()
            running.communicate(timeout=ENDING_SECONDS)
            raise
    assert running.returncode == 0, out[-2000:] + err[-6000:]
    label = f"label=com.docker.compose.project={PROJECT}"
    assert engine.podman("ps", "--all", "--quiet", "--filter", label) == ""
    assert engine.podman("volume", "ls", "--quiet", "--filter", label) == ""
    assert engine.podman("network", "ls", "--quiet", "--filter", label) == ""
    told = json.loads(out.strip().splitlines()[-1])
    print(json.dumps(told, indent=2))
    assert told["unauthorised"] == 401
    assert told["ingested"] == 1080
    assert told["retrain"] == "COMPLETED"
    assert told["version"] == 1
    assert (told["answers"], told["answers_with_one_replica"]) == ([200], [200])
    assert told["without_token"] == 401
    assert told["exit_code"] == 0
    assert told["replicas"] == 2
    assert told["watched"] == {"perennial-api": 2, "prometheus": 1}
    assert told["rules"] == 12
    assert [line for line in told["manual"] if "errors," in line and not line.startswith("0 errors")] == []
    assert len([line for line in told["manual"] if line.startswith("0 errors")]) == 2  # doctor in worker and api
    assert told["new_deployments"] == ["more"]
    assert told["dumps"] == ["PGDMP", "PGDMP"]
    assert "password authentication failed" in told["old_password"]
    assert told["models"] == ["digits"]
    assert len(told["stopped"]) == 5
    assert set(told["stopped"].values()) == {0}
