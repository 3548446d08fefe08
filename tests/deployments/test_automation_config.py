from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from deployments.automation_config import Automations, load_automations
from perennial.errors import DefinitionError
from perennial.settings import PROJECT_ROOT

WHOLE = """
zombies: {after: 2m}
pending: {after: 5m}
reruns: {most: 1}
notifications:
  - {name: team, on: [repair, failed], models: [toy], url_env: TEAM_URL}
  - {name: duty, on: [crashed], block: slack-webhook/duty}
deliveries:
  - {name: github, github: {repository: us/models, token_env: GITHUB_TOKEN}}
  - {name: ours, webhook: {url_env: OURS_URL, token_env: OURS_TOKEN}}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "automations.yaml").write_text(text)
    return folder


def test_the_whole_file(tmp_path: Path) -> None:
    found = load_automations([write(tmp_path, WHOLE)], {"toy": None})
    assert found.zombies.after == timedelta(minutes=2)
    assert found.pending.after == timedelta(minutes=5)
    assert found.reruns.most == 1
    assert [(item.name, item.on) for item in found.notifications] == [
        ("team", ("repair", "failed")),
        ("duty", ("crashed",)),
    ]
    assert found.variables() == ["TEAM_URL", "GITHUB_TOKEN", "OURS_URL", "OURS_TOKEN"]


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_automations([tmp_path]) == Automations()
    assert load_automations([write(tmp_path, "notifications:\nzombies:\n")]) == Automations()


def test_the_committed_file_is_right_and_needs_no_secret() -> None:
    assert load_automations([PROJECT_ROOT / "deployments"]).variables() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "reruns: {most: 11}",
            r"automations.yaml: reruns.most = 11: Input should be less than or equal to 10. Correct",
        ),
        ("rerun: {most: 1}", r"rerun: unknown key. Remove it"),
        ("zombies: {after: 20s}", r"zombies.after = '20s': runs send a heartbeat each 30 s: wait for at least 60s"),
        ("notifications: [{name: a, on: [], url_env: A}]", r"notifications.0.on: Tuple should have at least 1 item"),
        ("notifications: [{name: a, on: [drift], url_env: A}]", r"notifications.0.on.0 = 'drift': Input should be"),
        ("notifications: [{name: a, on: [repair]}]", r"notifications.0: give exactly one of url_env and block"),
        ("notifications: [{name: a, on: [repair], url_env: 'https://hooks'}]", r"url_env = 'https://hooks': String"),
        ("notifications: [{name: a, on: [repair], block: team}]", r"block = 'team': String should match pattern"),
        (
            "notifications: [{name: a, on: [repair], url_env: A}, {name: a, on: [failed], url_env: B}]",
            r"notifications: each needs a name of its own; named twice: a",
        ),
        ("deliveries: [{name: a}]", r"deliveries.0: give exactly one of github and webhook"),
        ("deliveries: [{name: a, github: {repository: us, token_env: A}}]", r"github.repository = 'us'"),
        ("notifications: [{name: a, on: [repair], models: [tou], url_env: A}]", r"there is no model tou. Defined are"),
        ("[]", r"holds list, not a mapping"),
    ],
)
def test_a_wrong_file_names_key_value_and_rule(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        load_automations([write(tmp_path, text)], {"toy": None})


def test_one_file_for_all_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "")
    with pytest.raises(DefinitionError, match=r"there are several automations.yaml: .*Keep one"):
        load_automations([tmp_path / "a", tmp_path / "b"])
