"""Which versions this process serves: watches the manifests, loads in the background, swaps one reference.

A version that fails a check is refused and the present one stays. What the last look found is in `status`. Versions
that are baked into an image are loaded once, and nothing is watched.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from perennial.definition import ModelDefinition
from perennial.errors import PerennialError, RegistryError
from perennial.serving.versions.cache import Cache, Manifest, read_manifest
from perennial.serving.versions.model import LoadedModel, load_version
from perennial.state.live import Follower
from perennial.workspace import Workspace

LOG = logging.getLogger("perennial.serving")
_IN_MEMORY = 3
_RETRY_SECONDS = 30.0
_FIRST_FOLLOW_SECONDS = 15.0
SwapListener = Callable[[str, int, str], None]


@dataclass(frozen=True)
class Served:
    """What answers for one model, swapped as a whole."""

    champion: LoadedModel
    candidate: LoadedModel | None = None


@dataclass
class _Watch:
    """What is known of one model's manifest and of the last attempt to follow it."""

    seen: tuple[int, ...] = ()
    retry_at: float = 0.0
    refused: dict[str, Any] | None = None
    swaps: int = 0
    torn: str = ""
    note: str = ""


class Host:
    """The served models of one process.

    Args:
        workspace: Definitions, registry address, home.
        poll_seconds: How often the manifests are looked at.
        on_swap: Called with model, version and `swapped`, `refused` or `cached`.
        follow_seconds: How often shared tables are asked for newer manifests.
        registry_seconds: How often the registry is asked whether it answers.
        baked: A folder of versions to serve instead of what the manifests say.
    """

    def __init__(
        self, workspace: Workspace, poll_seconds: float = 0.25, on_swap: SwapListener = lambda *_: None, *,
        follow_seconds: float = 2.0, registry_seconds: float = 10.0, baked: Path | None = None,
    ) -> None:  # fmt: skip
        self._workspace = workspace
        self._live = workspace.home / "live"
        self._baked = baked
        shared = workspace.settings.tables is not None and baked is None
        self._follower = Follower(workspace.store, self._live) if shared else None
        self._follow_seconds = follow_seconds
        self._follow_failing = ""
        self._followed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._cache = Cache(workspace.home, workspace.settings.mlflow_uri)
        self._poll_seconds = poll_seconds
        self._on_swap = on_swap
        self._watches: dict[str, _Watch] = {}
        self._memory: OrderedDict[tuple[str, str, str], LoadedModel] = OrderedDict()
        self._stop = threading.Event()
        self.served: Mapping[str, Served] = {}
        self.registry_up = True
        self._registry_seconds, self._registry_at = registry_seconds, 0.0

    def start(self) -> None:
        """Load every champion, then keep watching in a thread.

        Raises:
            RegistryError: A baked version is not what was baked: then nothing is served.
        """
        if self._baked is not None:
            self._load_baked(self._baked)
            return
        if self._follower is not None:
            self._start(self._follow_tables)
            self._followed.wait(_FIRST_FOLLOW_SECONDS)
        self.look()
        for model in self._models():
            if model not in self.served:
                self._fall_back(model)
        self._start(self._run)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _start(self, target: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=target, name="perennial-host", daemon=True))
        self._threads[-1].start()

    def status(self, model: str) -> dict[str, Any]:
        """The last refusal and the number of swaps."""
        watch = self._watches.get(model) or _Watch()
        return {"swaps": watch.swaps, "refused": watch.refused, "candidate_missing": watch.note or None}

    def problems(self) -> list[str]:
        """What an operator should know, in sentences."""
        found = [] if self.registry_up else ["the model registry does not answer; serving goes on from local copies"]
        if self._follow_failing:
            found.append(f"the shared tables don't tell of new champions: {self._follow_failing}")
        for model, watch in list(self._watches.items()):
            served = self.served.get(model)
            goes_on = f"version {served.champion.version} goes on" if served else "nothing answers for it"
            if watch.torn:
                found.append(f"{model}: {watch.torn}; {goes_on}; `perennial check {model}` writes the file anew")
            elif not watch.refused and served is None:
                found.append(f"{model}: its version is being loaded; until then nothing answers for it")
            if watch.refused:
                found.append(f"{model}: version {watch.refused['version']} was refused: {watch.refused['reason']}")
        return found

    def notes(self) -> list[str]:
        """What is as it must be, and yet not as a definition wants it: who should have canary and shadow is missing."""
        return [
            f"{model}: nobody gets canary and shadow (serving.candidate): {watch.note}"
            for model, watch in list(self._watches.items())
            if watch.note
        ]

    def look(self) -> None:
        """Follow every manifest that changed since the last look."""
        for path in sorted(self._live.glob("*.json")):
            watch = self._watches.setdefault(path.stem, _Watch())
            seen = self._signature(path)
            if seen == watch.seen and not (watch.refused and time.monotonic() >= watch.retry_at):
                continue
            manifest = read_manifest(path)
            self._note_torn(path, manifest, watch)
            if manifest is None:
                continue
            watch.seen = seen
            self._follow(path.stem, manifest, watch)

    def waiting(self) -> list[str]:
        """The models that have a manifest and are not served."""
        return sorted(set(self._watches) - set(self.served))

    def why_not(self, model: str) -> str | None:
        """Why a model that has a manifest is not served; None where it has none, or is served."""
        watch = self._watches.get(model)
        if watch is None or model in self.served:
            return None
        return watch.torn or (watch.refused["reason"] if watch.refused else "it is being loaded")

    def _note_torn(self, path: Path, manifest: Manifest | None, watch: _Watch) -> None:
        """Remember a manifest that is there and can't be read: whatever it was to say, nobody follows it."""
        torn = ""
        if manifest is None and path.exists():
            empty = "torn" if path.stat().st_size else "empty"
            torn = f"{path} is {empty}: which version is to be served is not known"
            if not watch.torn:
                LOG.error("a manifest can't be read", extra={"facts": {"model": path.stem, "file": str(path)}})
        watch.torn = torn

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.look()
                self._check_registry()
            except Exception:
                LOG.exception("watching the manifests failed; trying again")

    def _follow_tables(self) -> None:
        """Bring the manifests here in line with the shared tables; storage that hangs delays nothing else."""
        assert self._follower is not None
        while not self._stop.is_set():
            try:
                for folder in self._workspace.settings.model_folders:
                    for path in folder.glob("*.yaml"):
                        self._follower.follow(path.stem)
                self._follow_failing = ""
            except Exception as error:  # noqa: BLE001 - whatever the storage does, the present champions go on
                if not self._follow_failing:
                    LOG.warning("the shared tables do not answer", extra={"facts": {"reason": str(error)[:500]}})
                self._follow_failing = str(error)[:200] or type(error).__name__
            self._followed.set()
            self._stop.wait(self._follow_seconds)

    def _load_baked(self, folder: Path) -> None:
        paths = sorted(folder.glob("*/manifest.json"))
        for path in paths:
            manifest = read_manifest(path)
            if manifest is None:
                raise RegistryError(f"{path} is not whole", "Build the image anew: `perennial containerize`")
            model = str(manifest["model"])
            champion = load_version(path.parent, manifest, self._workspace.definition(model))
            self.served = {**self.served, model: Served(champion)}
            LOG.info("serving", extra={"facts": {"model": model, "version": champion.version, "baked": True}})
            self._on_swap(model, champion.version, "swapped")
        if not paths:
            raise RegistryError(f"{folder} holds no version", "Build the image anew: `perennial containerize`")

    def _models(self) -> list[str]:
        known = {path.stem for path in self._live.glob("*.json")}
        return sorted(known | {path.stem for path in (self._workspace.home / "serving" / "good").glob("*.json")})

    def _signature(self, path: Path) -> tuple[int, ...]:
        parts: list[int] = []
        try:
            stat = path.stat()
            parts = [stat.st_mtime_ns, stat.st_ino]
            definition = next(
                (found for folder in self._workspace.settings.model_folders
                 if (found := folder / f"{path.stem}.yaml").exists()), None,
            )  # fmt: skip
            parts.append(definition.stat().st_mtime_ns if definition else 0)
        except OSError:
            pass
        return tuple(parts)

    def _follow(self, model: str, manifest: Manifest, watch: _Watch) -> None:
        try:
            definition = self._workspace.definition(model)
            champion = self._load(manifest, definition)
        except Exception as error:  # noqa: BLE001 - whatever a version does, the present one goes on
            self._refuse(model, manifest, watch, error)
            return
        candidate = self._candidate(manifest, champion, watch)
        before = self.served.get(model)
        self.served = {**self.served, model: Served(champion, candidate)}
        watch.refused = None
        try:
            self._cache.mark_good(manifest)
        except OSError as error:  # a full disk: what is served is served, the next start may have to ask the registry
            LOG.warning("the version can't be noted as good", extra={"facts": {"model": model, "reason": str(error)}})
        if before is None or before.champion.digest != champion.digest or before.champion.version != champion.version:
            watch.swaps += 1
            LOG.info("serving", extra={"facts": {"model": model, "version": champion.version}})
            if unknown := sorted(set(definition.serving.redact) - set(champion.schema.columns)):
                facts = {"model": model, "version": champion.version, "redact": unknown}
                LOG.warning("serving.redact names what is no column of this version", extra={"facts": facts})
            self._on_swap(model, champion.version, "swapped")
        used = [served.champion.manifest for served in self.served.values()]
        self._cache.prune(model, [self._cache.folder(item) for item in used])

    def _load(self, manifest: Manifest, definition: ModelDefinition) -> LoadedModel:
        key = (definition.name, str(manifest["digest"]), f"{manifest['version']}:{definition.hash}")
        if key in self._memory:
            self._memory.move_to_end(key)
            return replace(self._memory[key], manifest=manifest)
        loaded = load_version(self._cache.fetch(manifest), manifest, definition)
        self._memory[key] = loaded
        while len(self._memory) > max(_IN_MEMORY, 2 * len(self.served) + 1):
            self._memory.popitem(last=False)
        return loaded

    def _candidate(self, manifest: Manifest, champion: LoadedModel, watch: _Watch) -> LoadedModel | None:
        """The version for canary and shadow, if the definition wants one and it passes the same checks.

        Where one is wanted and there is none, why is noted.
        """
        definition, serving, before = champion.definition, champion.definition.serving, watch.note
        watch.note = ""
        if not (serving.canary or serving.shadow):
            return None
        found = manifest.get(serving.candidate) or manifest.get("previous")
        made = None
        if not isinstance(found, Mapping):
            why = "no champion stands before the present one"
            if manifest.get("action") == "rollback":
                why += ": it was rolled back to"
            watch.note = why if serving.candidate == "previous" else f"there is no challenger, and {why}"
        else:
            try:
                made = self._load(found, definition)
            except Exception as error:  # noqa: BLE001 - a candidate must not stand in the champion's way
                watch.note = f"version {found['version']} was refused: {error}"
                self._on_swap(definition.name, int(found["version"]), "refused")
        if made is not None and (made.schema.columns, made.schema.kinds) != (
            champion.schema.columns, champion.schema.kinds
        ):  # fmt: skip
            watch.note, made = f"version {made.version} reads other columns than the champion", None
        if made is not None and made.many != champion.many:
            watch.note, made = f"version {made.version} answers other classes than the champion", None
        if watch.note and watch.note != before:
            facts = {"model": definition.name, "candidate": serving.candidate, "reason": watch.note}
            LOG.warning("nobody gets canary and shadow", extra={"facts": facts})
        return made

    def _refuse(self, model: str, manifest: Manifest, watch: _Watch, error: Exception) -> None:
        reason = str(error) if isinstance(error, PerennialError) else f"{type(error).__name__}: {error}"
        first = watch.refused is None or watch.refused["version"] != manifest["version"]
        watch.refused = {"version": manifest["version"], "reason": reason, "at": time.time()}
        watch.retry_at = time.monotonic() + _RETRY_SECONDS
        if first:
            LOG.error("version refused", extra={"facts": {"model": model, **watch.refused}})
            self._on_swap(model, int(manifest["version"]), "refused")

    def _fall_back(self, model: str) -> None:
        """Start with the last version that passed its checks here, where the present one can't be had."""
        manifest = self._cache.last_good(model)
        if manifest is None or not self._cache.folder(manifest).is_dir():
            return
        try:
            champion = self._load(manifest, self._workspace.definition(model))
        except Exception as error:  # noqa: BLE001 - one model must not keep the others from starting
            LOG.error("the local copy is unusable", extra={"facts": {"model": model, "reason": str(error)}})
            return
        self.served = {**self.served, model: Served(champion)}
        self._on_swap(model, champion.version, "cached")

    def _check_registry(self) -> None:
        if time.monotonic() < self._registry_at:
            return
        self._registry_at = time.monotonic() + self._registry_seconds
        self.registry_up = registry_answers(self._workspace.settings.mlflow_uri)


def registry_answers(uri: str) -> bool:
    """Whether the registry's server answers, or its database is there; never creates anything."""
    if uri.startswith("sqlite:///"):
        return Path(uri.removeprefix("sqlite:///")).is_file()
    if uri.startswith("postgresql"):
        parts = urlsplit(uri)
        try:
            with socket.create_connection((parts.hostname or "localhost", parts.port or 5432), timeout=3):
                return True
        except OSError:
            return False
    if not uri.startswith(("http://", "https://")):
        return True
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=3) as answer:  # noqa: S310 - http only, above
            return bool(answer.status == 200)
    except OSError:
        return False
