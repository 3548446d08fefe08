"""Local copies of the versions that are served, so that a start needs no registry. Loads and judges nothing.

A version lies whole in HOME/serving/versions/NAME/VERSION-DIGEST (`model/`, `golden.parquet`, `manifest.json`), put
there by one rename. HOME/serving/good/NAME.json is the manifest of the last version that passed its checks.
Storage on this machine is copied without MLflow; any other is fetched by a process of its own that then ends, for
MLflow costs more memory than the models.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from perennial.errors import RegistryError
from perennial.model.artifacts import folder_digest
from perennial.state.files import exclusive, sync_tree, write_whole
from perennial.surroundings import child_environment, python_command

Manifest = Mapping[str, Any]
GOLDEN_FILE = "golden.parquet"
PROOF_FILE = "fast_path.json"
_FETCH_SECONDS = 300.0
_KEPT = 4


class Cache:
    """The versions of all models under one home.

    Args:
        home: PERENNIAL_HOME.
        tracking_uri: The registry, for storage that is not on this machine.
    """

    def __init__(self, home: Path, tracking_uri: str) -> None:
        self._root = home / "serving"
        self._locks = home / "locks"
        self._tracking_uri = tracking_uri

    def folder(self, manifest: Manifest) -> Path:
        return self._root / "versions" / str(manifest["model"]) / f"{manifest['version']}-{manifest['digest'][:16]}"

    def fetch(self, manifest: Manifest) -> Path:
        """The folder with the version, copied if it is not here whole; one process copies, others wait for it.

        Raises:
            RegistryError: The storage did not answer, or gave other files than were registered.
        """
        folder = self.folder(manifest)
        if self._whole(folder, manifest):
            return folder
        name = f"fetch-{manifest['model']}"
        with exclusive(self._locks, name, wait_seconds=_FETCH_SECONDS, busy=f"{manifest['model']} is being fetched"):
            if self._whole(folder, manifest):
                return folder
            folder.parent.mkdir(parents=True, exist_ok=True)
            staged = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder.parent))
            try:
                self._copy(manifest, staged)
                found = folder_digest(staged / "model")
                if found != manifest["digest"]:
                    raise RegistryError(
                        f"version {manifest['version']} of {manifest['model']} has the digest {found[:12]}…, "
                        f"registered was {manifest['digest'][:12]}…",
                        "Its files were changed after registration: roll back, and retrain",
                    )
                (staged / "manifest.json").write_text(json.dumps(dict(manifest)), encoding="utf-8")
                staged.chmod(0o755)
                sync_tree(staged)
                shutil.rmtree(folder, ignore_errors=True)  # a torn one
                staged.rename(folder)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
        return folder

    def _whole(self, folder: Path, manifest: Manifest) -> bool:
        """Whether a version lies here as it was registered: a power cut may have torn what a rename made look whole."""
        try:
            golden = (folder / GOLDEN_FILE).stat().st_size
            return golden > 0 and folder_digest(folder / "model") == manifest["digest"]
        except OSError:
            return False

    def mark_good(self, manifest: Manifest) -> None:
        """Remember the version as the one to start with when nothing else can be had."""
        path = self._root / "good" / f"{manifest['model']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(dict(manifest)))

    def last_good(self, model: str) -> Manifest | None:
        """The manifest of the last version that passed its checks here."""
        return read_manifest(self._root / "good" / f"{model}.json")

    def prune(self, model: str, kept: Collection[Path]) -> None:
        """Remove all but the newest few versions and those that are in use."""
        folders = sorted((self._root / "versions" / model).glob("[0-9]*-*"), key=lambda item: item.stat().st_mtime)
        for folder in folders[:-_KEPT]:
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _copy(self, manifest: Manifest, target: Path) -> None:
        model, run = local_path(manifest.get("model_uri", "")), local_path(manifest.get("run_uri", ""))
        try:
            if model is not None and run is not None:
                shutil.copytree(model, target / "model")
                shutil.copy2(run / GOLDEN_FILE, target / GOLDEN_FILE)
                return
        except OSError as error:
            raise RegistryError(
                f"the files of {_name(manifest)} can't be read: {error}", "Check the storage"
            ) from error
        self._download(manifest, target)

    def _download(self, manifest: Manifest, target: Path) -> None:
        command = python_command(
            "perennial.serving.versions.fetch", str(manifest["source"]), f"runs:/{manifest['run_id']}/{GOLDEN_FILE}",
            str(target),
        )  # fmt: skip
        # The address is not among the arguments, which everybody on the machine can see: it may hold a password.
        environment = child_environment({
            "MLFLOW_TRACKING_URI": self._tracking_uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        })  # fmt: skip
        try:
            done = subprocess.run(  # noqa: S603 - our own module, arguments as a list
                command, env=environment, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RegistryError(
                f"fetching {_name(manifest)} took over {_FETCH_SECONDS:g} s", "Check the storage"
            ) from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RegistryError(f"{_name(manifest)} can't be fetched: {reason[:300]}", "Check registry and storage")


def read_manifest(path: Path) -> Manifest | None:
    """A manifest; None where there is none or it is not whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and {"model", "version", "digest", "source", "run_id"} <= set(found)
    return found if whole else None


def read_proof(home: Path, model: str, version: int) -> dict[str, Any] | None:
    """What the last load of a version on this machine found of its fast path; None where it was never loaded."""
    found = sorted(
        (home / "serving" / "versions" / model).glob(f"{version}-*/{PROOF_FILE}"), key=lambda path: path.stat().st_mtime
    )
    try:
        proof: dict[str, Any] = json.loads(found[-1].read_text(encoding="utf-8"))
        return proof if {"kind", "fast_rows", "reason"} <= proof.keys() else None
    except (IndexError, OSError, ValueError):
        return None


def local_path(uri: str) -> Path | None:
    """The folder that a URI names on this machine; None for any other storage."""
    parsed = urlparse(uri)
    if parsed.scheme == "file" and parsed.netloc in ("", "localhost"):
        return Path(unquote(parsed.path))
    return Path(uri) if uri.startswith("/") else None


def _name(manifest: Manifest) -> str:
    return f"version {manifest['version']} of {manifest['model']}"
