"""Object storage: what a root needs to be reached, and small objects that are written once. It knows no table.

A root is a folder or a URL such as s3://bucket/path. Keys, regions and endpoints come from the environment's usual
AWS_* variables, which deltalake, obstore and MLflow all read; nothing here stores or shows one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from perennial.errors import NotFoundError, StorageError

PATIENCE_SECONDS = 20.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# With its words: a name or an address may hold the bare number.
_REFUSED = re.compile(r"403 Forbidden|AccessDenied|[Pp]ermission ?[Dd]enied")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")


def is_remote(root: str) -> bool:
    """Whether a root is not a folder of this machine."""
    return "://" in root and not root.startswith("file://")


def endpoint(environment: Mapping[str, str] | None = None) -> str:
    """The S3-compatible server's address where one is named; empty for Amazon's own."""
    known = os.environ if environment is None else environment
    return next((known[name] for name in _ENDPOINTS if known.get(name)), "")


def storage_options(
    root: str, *, patience_seconds: float = PATIENCE_SECONDS, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What `deltalake` is told of a root beside the environment's keys.

    Args:
        patience_seconds: How long a storage that fails is asked again.
    """
    if not is_remote(root):
        return {}
    options = {
        "timeout": "30s", "connect_timeout": "5s", "max_retries": "1000", "retry_timeout": f"{patience_seconds:g}s",
    }  # fmt: skip
    if root.startswith("s3"):
        known = os.environ if environment is None else environment
        options["aws_conditional_put"] = "etag"  # a commit is a create that fails where there is one already
        options["aws_region"] = known.get("AWS_REGION") or known.get("AWS_DEFAULT_REGION") or "us-east-1"
        if address := endpoint(environment):
            options["aws_endpoint_url"] = address
            options["aws_allow_http"] = str(address.startswith("http://")).lower()
    return options


@dataclass(frozen=True)
class Entry:
    """An object's name below its root, its size and when the storage says that it was written."""

    name: str
    size: int
    modified: datetime


class Objects:
    """Objects below one root, by names with slashes. Every failure is a StorageError that names the root.

    Args:
        root: A folder or an object-store URL; nothing is made before the first write.
        patience_seconds: How long a storage that fails is asked again.
    """

    def __init__(self, root: str, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.root = root.rstrip("/")
        self._patience_seconds = patience_seconds
        self._opened: Any = None

    def get(self, name: str) -> bytes | None:
        """The object's content; None where there is none."""
        if self._absent():
            return None
        import obstore

        with self._told(f"read {name}"):
            try:
                return bytes(obstore.get(self._store(), name).bytes())
            except FileNotFoundError:
                return None

    def put(self, name: str, content: bytes) -> None:
        """Write an object whole, over one that is there."""
        import obstore

        with self._told(f"write {name}"):
            obstore.put(self._store(make=True), name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write an object only where there is none; whether it did. Of several at once one does."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._told(f"write {name}"):
            try:
                obstore.put(self._store(make=True), name, content, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def download(self, name: str, target: Path) -> str:
        """Copy an object into a new file, in pieces; its SHA-256 as hex.

        Raises:
            NotFoundError: There is no such object.
        """
        import obstore

        target.parent.mkdir(parents=True, exist_ok=True)
        total = hashlib.sha256()
        with self._told(f"read {name}"):
            try:
                pieces = obstore.get(self._store(), name)
            except FileNotFoundError:
                raise NotFoundError(f"{self.root}/{name} is gone", "Try again") from None
            with target.open("xb") as file:
                for piece in pieces:
                    total.update(piece)
                    file.write(piece)
        return total.hexdigest()

    def upload(self, source: Path, name: str) -> None:
        """Write an object from a file, in pieces."""
        import obstore

        with self._told(f"write {name}"):
            obstore.put(self._store(make=True), name, source)

    def delete(self, name: str) -> None:
        """Remove an object; one that is gone is no error."""
        import obstore

        with self._told(f"remove {name}"):
            try:
                obstore.delete(self._store(), name)
            except FileNotFoundError:
                return

    def entries(self, prefix: str = "") -> list[Entry]:
        """Everything below a prefix (a folder), sorted by name."""
        if self._absent():
            return []
        import obstore

        with self._told(f"list {prefix or 'the objects'}"):
            found = [item for page in obstore.list(self._store(), prefix=prefix or None) for item in page]
        return sorted(
            (Entry(item["path"], int(item["size"]), item["last_modified"]) for item in found),
            key=lambda item: item.name,
        )

    def folders(self, prefix: str = "") -> list[str]:
        """The names of the folders right below a prefix."""
        if self._absent():
            return []
        import obstore

        with self._told(f"list {prefix or 'the folders'}"):
            found = obstore.list_with_delimiter(self._store(), prefix=prefix or None)["common_prefixes"]
        return sorted(name.rstrip("/").split("/")[-1] for name in found)

    def _absent(self) -> bool:
        return not is_remote(self.root) and not self._folder().is_dir()

    def _folder(self) -> Path:
        return Path(self.root.removeprefix("file://"))

    def _store(self, *, make: bool = False) -> Any:
        from obstore.store import LocalStore, from_url

        if not is_remote(self.root):
            if make:
                self._folder().mkdir(parents=True, exist_ok=True)
            self._opened = self._opened or LocalStore(self._folder())
        elif self._opened is None:
            options = storage_options(self.root)
            # Their types are those of one service each; which one it is, the URL says.
            config: Any = {name: options[name] for name in ("aws_endpoint_url", "aws_region") if name in options}
            client: Any = {
                "allow_http": options.get("aws_allow_http") == "true",
                "timeout": timedelta(seconds=30), "connect_timeout": timedelta(seconds=5),
            }  # fmt: skip
            retry: Any = {"max_retries": 1000, "retry_timeout": timedelta(seconds=self._patience_seconds)}
            self._opened = from_url(self.root, config=config, client_options=client, retry_config=retry)
        return self._opened

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise storage_error(self.root, error, doing) from error


def storage_error(root: str, error: Exception, doing: str) -> StorageError:
    """What a storage's failure means to a person: full, refused, or away."""
    text = " ".join(_COLOUR.sub("", str(error)).split()).partition(" Debug source:")[0]
    if "No space left" in text or "os error 28" in text or "quota exceeded" in text.lower():
        return StorageError(
            f"{root} is full (could not {doing})", "Free space there, then run it again: nothing is lost"
        )
    if isinstance(error, PermissionError) or _REFUSED.search(text):
        return StorageError(
            f"{root} refuses to {doing}: {_short(text)}",
            "Give this user or key the right to read, write and list there",
        )
    return StorageError(
        f"{root} did not {doing}: {_short(text)}", "See that it is up (`perennial doctor`), then run it again"
    )


def dump(value: Mapping[str, Any]) -> bytes:
    """A small JSON document as it is stored."""
    return json.dumps(dict(value), indent=2, sort_keys=True).encode()


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:200]} … {text[-90:]}"
