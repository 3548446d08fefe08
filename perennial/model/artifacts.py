"""Model artifacts on disk: how a pipeline is stored, its digest, and loading it without trusting what it says.

A model is only loaded after its digest was found equal to the one that was recorded at registration, and
with the types that we (or its definition, by name) trust: never with the list inside the artifact. A team's own file
lies beside the model in `code/`, part of the digest; it is run only where the definition trusts a type of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from perennial.errors import DefinitionError, PerennialError, RegistryError
from perennial.model.known import respell_encoders
from perennial.model.plugins import (
    importable,
    load_stored,
    loaded_modules,
    own_module,
    source_of,
    stored_name,
    stored_names,
)

if TYPE_CHECKING:
    from perennial.definition import Training

SKOPS_FILE = "model.skops"
PICKLE_FILE = "model.pkl"
CODE_FOLDER = "code"


@dataclass(frozen=True)
class Storage:
    """How a pipeline is stored.

    Attributes:
        pickled: As a pickle, which its definition allows, with the team's own code inside.
        trusted: The types that it may be loaded with, by the names that are stored.
        modules: The team's modules that its types are of; their files travel with it.
    """

    pickled: bool
    trusted: tuple[str, ...]
    modules: tuple[ModuleType, ...] = ()

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Within it, the pipeline is stored by the names that another process finds."""
        with _by_value() if self.pickled else stored_names(self.modules):
            yield

    def write_code(self, folder: Path) -> list[Path]:
        """The team's files as they were run, written below the folder."""
        written = []
        for module in self.modules:
            path = folder / f"{stored_name(module)}.py"
            path.write_bytes(source_of(module))
            written.append(path)
        return written


def trusted_types(training: Training) -> tuple[str, ...]:
    """The types that a model of this definition may be stored and loaded with."""
    from perennial.model.transformers import TRUSTED_TYPES

    return (*TRUSTED_TYPES, *training.trusted_types)


def how_to_store(pipeline: Any, training: Training) -> Storage:
    """How a pipeline, fitted or not, is stored: by skops, or as a pickle where it must be and the definition allows it.

    Raises:
        DefinitionError: It holds types that nobody trusts, or what no other process can find; all are named.
    """
    import skops.io

    trusted = trusted_types(training)
    try:
        found = sorted(skops.io.get_untrusted_types(data=skops.io.dumps(pipeline)))
        modules = {name: module for name in found if (module := own_module(name)) is not None}
        _require_findable(modules)
    except PerennialError:
        if training.allow_pickle:
            return Storage(True, trusted)
        raise
    except Exception as error:
        if training.allow_pickle:
            return Storage(True, trusted)
        raise DefinitionError(
            f"the model can't be stored: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            "Keep only numbers, texts, arrays and scikit-learn's own objects in its attributes, or set "
            "`training: {allow_pickle: true}`",
        ) from error
    stored = [f"{stored_name(modules[name])}.{name.rpartition('.')[2]}" if name in modules else name for name in found]
    strange = [name for name in stored if name not in trusted]
    if not strange:
        return Storage(False, trusted, tuple(dict.fromkeys(modules.values())))
    if training.allow_pickle:
        return Storage(True, trusted)
    raise DefinitionError(
        f"the model holds types that nobody trusts: {', '.join(strange)}",
        f"If you do, write `training: {{trusted_types: [{', '.join([*training.trusted_types, *strange])}]}}`",
    )


def save_model(pipeline: Any, folder: Path, training: Training) -> None:
    """Write the files that `load_model` reads, without a registry.

    Raises:
        DefinitionError: As `how_to_store`.
    """
    import cloudpickle
    import skops.io

    storage = how_to_store(pipeline, training)
    folder.mkdir(parents=True, exist_ok=True)
    with storage.naming():
        if storage.pickled:
            (folder / PICKLE_FILE).write_bytes(cloudpickle.dumps(pipeline))
        else:
            skops.io.dump(pipeline, folder / SKOPS_FILE)
    if storage.modules:
        (folder / CODE_FOLDER).mkdir()
        storage.write_code(folder / CODE_FOLDER)


def folder_digest(folder: Path) -> str:
    """The SHA-256 of every file below the folder, with its relative path, as hex."""
    total = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def load_model(folder: Path, *, digest: str, trusted: Collection[str] = (), allow_pickle: bool = False) -> Any:
    """Load the fitted pipeline in an MLflow model's folder.

    Args:
        folder: The model's artifacts.
        digest: What `folder_digest` gave when it was registered.
        trusted: Types that its definition trusts, beyond the built-in ones.
        allow_pickle: Whether its definition lets it be a pickle.

    Raises:
        RegistryError: The files differ from what was registered, or hold types that nobody trusts.
    """
    found = folder_digest(folder)
    if found != digest:
        raise RegistryError(
            f"the model's files have the digest {found[:12]}…, registered was {digest[:12]}…",
            "They were changed after registration: roll back to a version that is whole, and retrain",
        )
    if (folder / SKOPS_FILE).is_file():
        return respell_encoders(_load_skops(folder, trusted))
    if not allow_pickle:
        raise RegistryError(
            "the model is stored as a pickle, which its definition does not allow",
            "Set training.allow_pickle: true if you trust its author",
        )
    import cloudpickle

    with (folder / PICKLE_FILE).open("rb") as file:
        return respell_encoders(cloudpickle.load(file))


def _load_skops(folder: Path, trusted: Collection[str]) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    from perennial.model.transformers import TRUSTED_TYPES  # scikit-learn, for those who load a model only

    try:
        with importable(_stored_modules(folder / CODE_FOLDER, trusted)):
            return skops.io.load(folder / SKOPS_FILE, trusted=[*TRUSTED_TYPES, *trusted])
    except UntrustedTypesFoundException as error:
        raise RegistryError(
            f"the model can't be loaded safely: {error}", "Name them in training.trusted_types"
        ) from error
    except (ImportError, AttributeError) as error:
        raise RegistryError(
            f"the model names what is not here: {error}",
            "Install the package that has it; what is a team's own must stand at the top level of its estimator's file",
        ) from error


def _stored_modules(folder: Path, trusted: Collection[str]) -> list[ModuleType]:
    """The files that travelled with the model, run: only those of which the definition trusts a type."""
    named = {name.partition(".")[0] for name in trusted}
    return [load_stored(path) for path in sorted(folder.glob("*.py")) if path.stem in named]


def _require_findable(modules: dict[str, ModuleType]) -> None:
    """Refuse what another process would not find in the file: a lambda, a class made inside a function."""
    for name, module in modules.items():
        own = name.rpartition(".")[2]
        if not hasattr(module, own):
            raise DefinitionError(
                f"the model can't be stored: it holds {own} of {module.__file__}, which does not stand at top level",
                f"Give it a name at the top level of {stored_name(module)}.py",
            )


@contextmanager
def _by_value() -> Iterator[None]:
    """Pickles made within hold the team's own code: no later process has the file as it is now."""
    import cloudpickle

    modules = loaded_modules()
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
