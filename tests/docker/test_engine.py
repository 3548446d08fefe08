"""Where containers can't be tried, the reason is said: nobody takes a skip for a success."""

from __future__ import annotations

from pathlib import Path

import engine
import pytest


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that can do it all."""
    (tmp_path / "make-base-image").touch()
    monkeypatch.setattr(engine, "OCI", tmp_path)
    monkeypatch.setattr(engine.os, "geteuid", lambda: 0)
    monkeypatch.setattr(engine.shutil, "which", lambda name, path=None: f"/bin/{name}")
    assert engine.why_not() == ""


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"podman", "runc", "mmdebstrap", "unshare", "iptables", "aardvark-dns"}
    monkeypatch.setattr(engine.shutil, "which", lambda name, path=None: name if name in there else None)
    assert engine.why_not() == "buildah, netavark not installed: tests/system-packages.sh"


def test_who_is_not_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.os, "geteuid", lambda: 1000)
    assert engine.why_not() == "containers are tried as root only"


def test_a_missing_stand_in_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "OCI", tmp_path / "none")
    assert engine.why_not() == f"no {tmp_path}/none/make-base-image, which makes the stand-in for {engine.BASE}"
