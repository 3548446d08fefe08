"""A workspace finds its models by name, and one model's broken file hinders no other."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from small_model import define

from perennial.errors import ConflictError, DefinitionError, NotFoundError
from perennial.settings import Settings
from perennial.workspace import Workspace, open_workspace


def test_finds_definitions_by_name(workspace: Workspace) -> None:
    define(workspace)
    define(workspace, name="letters")
    assert sorted(workspace.definitions()) == ["digits", "letters"]
    assert workspace.definition("letters").name == "letters"


def test_a_broken_neighbour_is_no_hindrance(workspace: Workspace) -> None:
    define(workspace)
    (workspace.settings.model_folders[0] / "broken.yaml").write_text("task: [")
    assert workspace.definition("digits").name == "digits"
    with pytest.raises(DefinitionError, match=r"broken\.yaml: is not YAML"):
        workspace.definitions()
    with pytest.raises(DefinitionError, match=r"broken\.yaml: is not YAML"):
        workspace.definition("broken")


def test_proposes_the_nearest_name(workspace: Workspace) -> None:
    with pytest.raises(NotFoundError, match=r"there is no model 'digits'. Defined are: none"):
        workspace.definition("digits")
    define(workspace)
    with pytest.raises(NotFoundError, match=r"there is no model 'digist'. Did you mean digits?"):
        workspace.definition("digist")
    with pytest.raises(NotFoundError, match=r"Defined are: digits"):
        workspace.definition("zebra")


def test_folders_are_made_when_asked_for(workspace: Workspace) -> None:
    assert workspace.work_folder("digits", "key").is_dir()
    assert workspace.reports_folder("digits") == workspace.home / "reports" / "digits"
    assert workspace.reports_folder("digits").is_dir()


def test_one_retraining_of_a_model_at_a_time(workspace: Workspace) -> None:
    errors: list[str] = []

    def second() -> None:
        try:
            with workspace.retraining("digits", wait_seconds=0.05):
                errors.append("got in")
        except ConflictError as error:
            errors.append(str(error))

    with workspace.retraining("digits", wait_seconds=1), workspace.retraining("other", wait_seconds=1):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    (told,) = errors
    assert re.fullmatch(
        rf"digits is being retrained by process {os.getpid()} on \S+\. Wait for it to end, then try again\.", told
    )


def test_opens_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "there"))
    assert open_workspace().home == tmp_path / "there"
    assert open_workspace(Settings(home=tmp_path / "here")).home == tmp_path / "here"
    assert not (tmp_path / "there").exists()
