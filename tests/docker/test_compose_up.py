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
]
IN_A_WORLD_OF_ITS_OWN = ["unshare", "--net", "--mount", "--propagation", "private", "bash", "-ec"]


def keep_sockets_on_a_volume(compose: Path) -> None:
    """Debian's podman has a tmpfs on /run, below which its runc forgets the mode of another; Docker has none there."""
    text = compose.read_text(encoding="utf-8")
    data, sockets = "- postgres:/var/lib/postgresql/data\n", ', "/run/postgresql:mode=1777"'
    assert data in text
    assert sockets in text
    compose.write_text(text.replace(sockets, "").replace(data, f"{data}      - /run/postgresql\n"), encoding="utf-8")


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
    keep_sockets_on_a_volume(tmp_path / "docker" / "compose.yaml")
    made = subprocess.run([engine.ROOT / "docker" / "make-env"], capture_output=True, text=True, check=True)
    (tmp_path / "docker" / ".env").write_text(made.stdout, encoding="utf-8")
    (tmp_path / "laptop").mkdir()
    tmp_path.chmod(0o755)
    return tmp_path


def test_it_comes_up_and_a_retrain_runs_in_it(project: Path) -> None:
    for target in engine.TARGETS:
        engine.build(target, f"perennial-{target}")
    engine.make_stand_ins()
    driver = Path(__file__).with_name("compose_driver.py")
    inner = 'ip link set lo up; mount -t tmpfs tmpfs /run; exec "$@"'
    command = [*IN_A_WORLD_OF_ITS_OWN, inner, "-", sys.executable, str(driver), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2700, env=engine.environment())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(told, indent=2))
    assert told["unauthorised"] == 401
    assert told["ingested"] == 1080
    assert told["retrain"] == "COMPLETED"
    assert told["version"] == 1
    assert (told["answers"], told["answers_with_one_replica"]) == ([200], [200])
    assert told["without_token"] == 401
    assert told["exit_code"] == 0
    assert told["watched"] is True
    assert told["rules"] == 12
    assert {code for name, code in told["stopped"].items() if "api" in name or "worker" in name} == {0}
