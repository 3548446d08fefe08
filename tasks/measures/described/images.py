"""An image in plain values: how bright, how sharp, how large. Whatever the bytes are, nothing is raised.

Values are of the picture at no more than twice `SIDE` pixels on its longer side, so that pictures of all sizes compare,
and a large photograph costs little. Brightness and contrast are as `perennial.model.transformers.ImageStatistics` has.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perennial.model.features import feature_frame

if TYPE_CHECKING:
    from PIL import Image

    from perennial.definition import Features

Floats = NDArray[np.float64]

NUMBERS = ("brightness", "contrast", "sharpness", "width", "height", "colour")
SIDE = 256
MOST_BYTES = 64 * 1024 * 1024
MOST_PIXELS = 100_000_000
THUMBNAIL = 96
COLOURED = 24  # of 256: by so much the channels of a pixel differ where one sees a colour
# Pillow hands these to programs or to the system's own drawing.
_EXECUTED = frozenset({"EPS", "WMF", "EMF"})
_log = logging.getLogger(__name__)


def content(value: object) -> bytes | None:
    """An image's bytes, given as such or as a path; None where there is no such file, or none of a picture's size."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value) if len(value) <= MOST_BYTES else None
    if not isinstance(value, str):
        return None
    try:
        path = Path(value)
        # A pipe or a device would keep the check waiting for ever.
        return path.read_bytes() if path.is_file() and path.stat().st_size <= MOST_BYTES else None
    except (OSError, ValueError):
        return None


def describe_image(raw: bytes | None) -> tuple[float, ...] | None:
    """The values of one image, in the order of `NUMBERS`; None where it can't be read.

    Sharpness is the standard deviation of the Laplacian (Pech-Pacheco et al. 2000 take its square); colour is the share
    of the picture that is not grey.
    """
    picture = _read(raw, SIDE)
    if picture is None:
        return None
    image, (width, height) = picture
    grey = image.convert("L")
    counts = np.asarray(grey.histogram(), dtype=np.float64)
    levels = np.arange(256)
    brightness = float(counts @ levels / counts.sum())
    contrast = float(np.sqrt(max(0.0, counts @ levels**2 / counts.sum() - brightness**2)))
    return brightness, contrast, _sharpness(grey), float(width), float(height), _colour(image)


def readable_images(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows with images that can't be read as missing, so that a model which refuses such answers the rows."""
    if not columns:
        return rows
    return rows.assign(
        **{
            name: rows[name].map(lambda value: value if describe_image(content(value)) is not None else None)
            for name in columns
        }
    )


def stored_features(rows: pd.DataFrame, features: Features) -> pd.DataFrame:
    """The feature frame of rows that are kept: what can't be read any more is missing, and a check tells its share.

    Rows that somebody sends to be answered are refused for it by name instead.
    """
    return feature_frame(readable_images(rows, features.image), features)


def digest(raw: bytes) -> int:
    """64 bits of an image's bytes: equal files have equal ones."""
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little", signed=True)


def thumbnail(value: object, side: int = THUMBNAIL) -> bytes | None:
    """A small JPEG made anew of the picture, with nothing of the file but what is seen; None where it can't be read."""
    picture = _read(content(value), side)
    if picture is None:
        return None
    from PIL import Image

    small = picture[0].convert("RGB")
    small.thumbnail((side, side))
    anew = Image.new("RGB", small.size)  # a copy would keep comments, places and profiles
    anew.paste(small)
    made = io.BytesIO()
    anew.save(made, "JPEG", quality=75)
    return made.getvalue()


def _read(raw: bytes | None, side: int) -> tuple[Image.Image, tuple[int, int]] | None:
    """The first picture in a file, reduced, and its size as it is there."""
    if not raw:
        return None
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw), formats=_formats()) as opened:
            size = opened.size
            if size[0] * size[1] > MOST_PIXELS or not size[0] * size[1]:
                return None
            share = min(1.0, side / max(size))
            opened.draft("RGB", (max(1, round(size[0] * share)), max(1, round(size[1] * share))))
            factor = max(opened.size) // side
            if opened.mode in ("1", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBA", "RGBX", "La", "LA"):
                image: Image.Image = opened.convert("L" if opened.mode in ("1", "La", "LA") else "RGB")
            elif opened.mode in ("L", "RGB"):
                image = opened.copy() if factor < 2 else opened
            else:
                image = opened.convert("L")  # sixteen bits and more, as the model's own reading has them
            return (image.reduce(factor) if factor > 1 else image), size
    except Exception as error:  # noqa: BLE001 - a decoder may throw anything at a broken or hostile file
        _log.debug("an image can't be read: %s: %s", type(error).__name__, error)
        return None


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.OPEN if name not in _EXECUTED)


def _sharpness(grey: Image.Image) -> float:
    values = np.asarray(grey, dtype=np.int16)
    if min(values.shape) < 3:
        return 0.0
    inner = 4 * values[1:-1, 1:-1]
    curved = inner - values[:-2, 1:-1] - values[2:, 1:-1] - values[1:-1, :-2] - values[1:-1, 2:]
    return float(curved.std())


def _colour(image: Image.Image) -> float:
    if image.mode != "RGB":
        return 0.0
    small = image.reduce(max(1, min(image.size) // 32))
    values = np.asarray(small, dtype=np.int16)
    return float((values.max(axis=2) - values.min(axis=2) > COLOURED).mean())
