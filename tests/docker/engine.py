"""Building and running containers for the tests, with buildah, podman and runc as root. Also a command:

`python tests/docker/engine.py` builds all images that the tests need, and prints their sizes and times; the tests leave
them for the next time, `--remove` removes them.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from lean_processes import trusting_environment

ROOT = Path(__file__).resolve().parents[2]
OCI = ROOT.parent / "shared" / "oci"
BASE = "docker.io/library/python:3.11-slim"
COMPOSE = ROOT / "docker" / "compose.yaml"
STAND_INS = ("postgres", "storage", "proxy", "prometheus")
TARGETS = ("serving", "worker", "server")
TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "unshare", "iptables", "netavark", "aardvark-dns")
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/lib/podman"
BUILD_SECONDS = 2400


def why_not() -> str:
    """Why containers can't be tried here; empty where they can."""
    if os.geteuid() != 0:
        return "containers are tried as root only"
    if missing := [name for name in TOOLS if shutil.which(name, path=PATH) is None]:
        return f"{', '.join(missing)} not installed: tests/system-packages.sh"
    if not (OCI / "make-base-image").is_file():
        return f"no {OCI}/make-base-image, which makes the stand-in for {BASE}"
    return ""


@cache
def environment() -> dict[str, str]:
    """The variables that podman and buildah run with: a configuration of ours, nothing of the machine's."""
    folder = Path(tempfile.mkdtemp(prefix="perennial-containers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "containers.conf").write_text(
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "limited"\n'
        f'[engine.runtimes]\nlimited = ["{OCI / "runc-norlimit"}"]\n[network]\nnetwork_backend = "netavark"\n'
    )
    return {
        **trusting_environment(os.environ),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "BUILDAH_ISOLATION": "chroot",
    }


def run(
    *command: str, check: bool = True, seconds: float = 120, variables: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is in the error where it fails."""
    env = {**environment(), **(variables or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=env, **options)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def podman(*arguments: str, **options: Any) -> str:
    return run("podman", *arguments, **options).stdout.strip()


def has_image(name: str) -> bool:
    return run("podman", "image", "exists", name, check=False).returncode == 0


def make_base() -> None:
    """The stand-in for the official base image; one to three minutes the first time."""
    if not has_image(BASE):
        run(str(OCI / "make-base-image"), seconds=BUILD_SECONDS)


def mounts() -> list[str]:
    """What pip needs of this machine's settings while it builds."""
    there = (name for name in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt") if Path(name).exists())
    return [part for name in there for part in ("--volume", f"{name}:{name}:ro")]


def working() -> set[str]:
    """The containers in which images are being built."""
    return set(run("buildah", "containers", "--quiet", "--notruncate").stdout.split())


@cache
def build_image(target: str) -> float:
    """Build one of our images, once; the seconds it took. The stage with its packages has a name, so it is kept."""
    stage = "serving-packages" if target == "serving" else "worker-packages"
    return build(stage, f"perennial-{stage}") + build(target, f"perennial-{target}")


def build(target: str, tag: str, file: Path = ROOT / "docker" / "Dockerfile", context: Path = ROOT) -> float:
    """Build one target; the seconds that it took. Layers that are there already are taken."""
    make_base()
    started = time.monotonic()
    before = working()
    try:
        run(
            "buildah", "bud", "--layers", "--isolation", "chroot", "--pull-never", "--format", "docker",
            "--network", "host", *mounts(), "--file", str(file), "--target", target, "--tag", tag, str(context),
            seconds=BUILD_SECONDS,
        )  # fmt: skip
    except BaseException:  # a build that is broken off leaves gigabytes
        if left := working() - before:
            run("buildah", "rm", *left, check=False)
        raise
    return time.monotonic() - started


def nameless() -> set[str]:
    """The images without a name that no other is built on."""
    return set(podman("images", "--quiet", "--no-trunc", "--filter", "dangling=true").split())


def remove_nameless(before: set[str]) -> None:
    """Remove what builds have left behind since: images whose name a newer one has taken, stages of no further use."""
    known: set[str] = set()
    while (left := nameless() - before) and left != known:
        known = left
        run("podman", "rmi", *left, check=False)  # what a build elsewhere is using stays


def remove_project(name: str) -> None:
    """Remove a compose project's containers, volumes and network by their label, whatever has become of its files."""
    for kind, ask, remove in (
        ([], ["ps", "--all"], ["rm", "--force", "--volumes", "--time", "5"]),
        (["volume"], ["ls"], ["rm", "--force"]),
        (["network"], ["ls"], ["rm", "--force"]),
    ):
        if found := podman(*kind, *ask, "--quiet", "--filter", f"label=com.docker.compose.project={name}").split():
            podman(*kind, *remove, *found, seconds=300)


def stand_in_image(service: str) -> str:
    """The name that compose.yaml has for a service's image."""
    found: str = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"][service]["image"]
    return found


def make_stand_ins(services: Sequence[str] = STAND_INS) -> None:
    folder = Path(__file__).parent / "stand_ins"
    for service in services:
        if not has_image(stand_in_image(service)):
            build(service, stand_in_image(service), folder / "Dockerfile", folder)


def megabytes(image: str) -> int:
    """The size of an image with its base."""
    return round(inspect(image)["Size"] / 1e6)


def inspect(name: str) -> Any:
    return json.loads(podman("inspect", name))[0]


def remove_images() -> None:
    """Remove all images that the tests made, and their layers."""
    named = [f"perennial-{name}" for name in (*TARGETS, "serving-packages", "worker-packages")]
    run("podman", "rmi", "--force", *named, *(stand_in_image(service) for service in STAND_INS), BASE, check=False)


def main(arguments: Sequence[str]) -> str | None:
    """The command; an error's text."""
    if reason := why_not():
        return reason
    if "--remove" in arguments:
        remove_images()
        return None
    before = nameless()
    for target in TARGETS:
        seconds = build_image(target)
        print(f"{target}: {seconds:.0f} s, {megabytes(f'perennial-{target}')} MB", flush=True)
    for service in STAND_INS:
        started = time.monotonic()
        make_stand_ins([service])
        print(f"stand-in for {service}: {time.monotonic() - started:.0f} s", flush=True)
    remove_nameless(before)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
