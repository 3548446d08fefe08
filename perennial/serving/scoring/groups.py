"""Who gets which treatment: stable shares of ids by a salted hash, and ids of our own. No state, no clock.

The same id falls into the same group in every process and after every restart; another purpose or salt deals anew.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perennial.definition import Serving

_RANGE = 2.0**64


def in_share(name: str, share: float, salt: str, purpose: str) -> bool:
    """Whether an id belongs to the share (0 to 1) of ids that a purpose takes."""
    if share <= 0.0:
        return False
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=_key(salt, purpose)).digest()
    return int.from_bytes(digest, "little") / _RANGE < share


def left_alone(ids: Iterable[str], serving: Serving, model: str) -> list[bool] | None:
    """Whether each id is of the control group, on which nobody may act; None where the model has none."""
    if not serving.control_group:
        return None
    salt = serving.salt or model
    return [in_share(name, serving.control_group, salt, "control") for name in ids]


@lru_cache(maxsize=256)
def _key(salt: str, purpose: str) -> bytes:
    return hashlib.blake2b(f"{purpose}\0{salt}".encode(), digest_size=32).digest()


class Ids:
    """Ids that no other process and no other start gives: a random prefix and a count."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def take(self, count: int) -> list[str]:
        prefix = self._prefix
        return [f"{prefix}-{number:x}" for number in itertools.islice(self._numbers, count)]
