"""Objects on a folder and on S3 behave alike; options come from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.errors import NotFoundError, StorageError
from perennial.state.storage import Objects, is_remote, storage_error, storage_options


def test_objects(tables_root: str, tmp_path: Path) -> None:
    objects = Objects(f"{tables_root}/")
    assert objects.get("a/b") is None
    assert objects.entries() == []
    assert objects.folders() == []
    assert objects.create("a/b", b"one")
    assert not objects.create("a/b", b"two")
    assert objects.get("a/b") == b"one"
    objects.put("a/b", b"three")
    objects.put("c/d", b"x" * 100_000)
    assert [(entry.name, entry.size) for entry in objects.entries()] == [("a/b", 5), ("c/d", 100_000)]
    assert [entry.name for entry in objects.entries("a")] == ["a/b"]
    assert objects.folders() == ["a", "c"]
    digest = objects.download("c/d", tmp_path / "copies" / "d")
    assert len(digest) == 64
    assert (tmp_path / "copies" / "d").stat().st_size == 100_000
    objects.upload(tmp_path / "copies" / "d", "e/f")
    assert objects.download("e/f", tmp_path / "copies" / "f") == digest
    with pytest.raises(NotFoundError, match="none is gone"):
        objects.download("none", tmp_path / "copies" / "n")
    objects.delete("a/b")
    objects.delete("a/b")
    assert objects.get("a/b") is None


def test_looking_at_a_folder_makes_none(tmp_path: Path) -> None:
    objects = Objects(str(tmp_path / "none"))
    assert (objects.get("x"), objects.entries(), objects.folders()) == (None, [], [])
    assert not (tmp_path / "none").exists()


def test_options() -> None:
    assert storage_options("/a/folder") == {}
    assert storage_options("file:///a/folder") == {}
    plain = storage_options("s3://bucket/x", environment={})
    assert plain["aws_conditional_put"] == "etag"
    assert plain["aws_region"] == "us-east-1"
    assert "aws_endpoint_url" not in plain
    named = {"AWS_ENDPOINT_URL": "http://store:9000", "AWS_REGION": "eu-west-1", "AWS_SECRET_ACCESS_KEY": "hidden"}
    other = storage_options("s3://bucket/x", patience_seconds=7, environment=named)
    assert (other["aws_endpoint_url"], other["aws_allow_http"], other["aws_region"]) == (
        "http://store:9000", "true", "eu-west-1",
    )  # fmt: skip
    assert other["retry_timeout"] == "7s"
    assert "hidden" not in str(other)
    secure = storage_options("s3://b/x", environment={"AWS_ENDPOINT_URL_S3": "https://store"})
    assert secure["aws_allow_http"] == "false"
    assert "aws_region" not in storage_options("gs://bucket/x", environment={})


def test_what_is_remote() -> None:
    assert [is_remote(root) for root in ("/a", "a", "file:///a", "s3://b", "gs://b")] == [
        False,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("No space left on device (os error 28)"), "/r is full (could not write x). Free space there"),
        (PermissionError(13, "Permission denied"), "/r refuses to write x"),
        (OSError("Server returned 403 Forbidden"), "/r refuses to write x"),
        (OSError("PUT http://h:4403/b-9040353/t: error sending request"), "/r did not write x: PUT"),
        (OSError("tcp connect error"), "/r did not write x: tcp connect error. See that it is up"),
    ],
)
def test_what_failures_mean(error: OSError, told: str) -> None:
    found = storage_error("/r", error, "write x")
    assert isinstance(found, StorageError)
    assert str(found).startswith(told)
