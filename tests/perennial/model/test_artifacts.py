"""Models are loaded only whole, and only with types that we trust: never on their own word."""

from __future__ import annotations

from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from perennial.errors import RegistryError
from perennial.model.artifacts import PICKLE_FILE, SKOPS_FILE, folder_digest, load_model


class Scaler:
    """A team's own type."""

    def __init__(self, factor: float) -> None:
        self.factor = factor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = LogisticRegression().fit(np.array([[0.0], [1.0]]), [0, 1])
    skops.io.dump(model, tmp_path / SKOPS_FILE)
    (tmp_path / "MLmodel").write_text("flavors: {}")
    return tmp_path


def test_loads_what_was_registered(folder: Path) -> None:
    model = load_model(folder, digest=folder_digest(folder))
    assert model.predict([[2.0]]).tolist() == [1]


def test_the_digest_covers_content_names_and_places(folder: Path) -> None:
    before = folder_digest(folder)
    assert folder_digest(folder) == before
    (folder / "MLmodel").write_text("flavors: {x: y}")
    changed = folder_digest(folder)
    (folder / "MLmodel").rename(folder / "MLmodel2")
    renamed = folder_digest(folder)
    (folder / "sub").mkdir()
    (folder / "MLmodel2").rename(folder / "sub" / "MLmodel2")
    assert len({before, changed, renamed, folder_digest(folder)}) == 4


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_changed_files_are_refused(folder: Path, change: str) -> None:
    digest = folder_digest(folder)
    if change == "edit":
        data = bytearray((folder / SKOPS_FILE).read_bytes())
        data[-1] ^= 1
        (folder / SKOPS_FILE).write_bytes(bytes(data))
    elif change == "add":
        (folder / PICKLE_FILE).write_bytes(b"")
    else:
        (folder / "MLmodel").unlink()
    with pytest.raises(RegistryError, match=rf"have the digest .*, registered was {digest[:12]}…. They were changed"):
        load_model(folder, digest=digest)


def test_untrusted_types_are_refused_until_named(folder: Path) -> None:
    skops.io.dump(Scaler(2.0), folder / SKOPS_FILE)
    digest = folder_digest(folder)
    name = f"{Scaler.__module__}.Scaler"
    with pytest.raises(RegistryError, match=rf"can't be loaded safely: .*{name}.*Name them in training.trusted_types"):
        load_model(folder, digest=digest)
    assert load_model(folder, digest=digest, trusted=[name]).factor == 2.0


def test_a_pickle_is_refused_until_allowed(tmp_path: Path) -> None:
    (tmp_path / PICKLE_FILE).write_bytes(cloudpickle.dumps(Scaler(3.0)))
    digest = folder_digest(tmp_path)
    with pytest.raises(RegistryError, match=r"stored as a pickle, which its definition does not allow. Set training"):
        load_model(tmp_path, digest=digest)
    assert load_model(tmp_path, digest=digest, allow_pickle=True).factor == 3.0


def test_a_missing_folder_is_not_what_was_registered(folder: Path) -> None:
    digest = folder_digest(folder)
    with pytest.raises(RegistryError, match=r"roll back to a version that is whole"):
        load_model(folder / "gone", digest=digest)
