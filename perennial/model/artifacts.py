"""Model artifacts on disk: their digest, and loading them without trusting what they say of themselves.

A model is only loaded after its digest was found equal to the one that was recorded at registration, and
with the types that we (or its definition, by name) trust: never with the list inside the artifact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from perennial.errors import RegistryError
from perennial.model.known import respell_encoders

SKOPS_FILE = "model.skops"
PICKLE_FILE = "model.pkl"


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
        return respell_encoders(_load_skops(folder / SKOPS_FILE, trusted))
    if not allow_pickle:
        raise RegistryError(
            "the model is stored as a pickle, which its definition does not allow",
            "Set training.allow_pickle: true if you trust its author",
        )
    import cloudpickle

    with (folder / PICKLE_FILE).open("rb") as file:
        return respell_encoders(cloudpickle.load(file))


def _load_skops(path: Path, trusted: Collection[str]) -> Any:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    from perennial.model.transformers import TRUSTED_TYPES  # scikit-learn, for those who load a model only

    try:
        return skops.io.load(path, trusted=[*TRUSTED_TYPES, *trusted])
    except UntrustedTypesFoundException as error:
        raise RegistryError(
            f"the model can't be loaded safely: {error}", "Name them in training.trusted_types"
        ) from error
