"""An image's plain values: right on real photographs, and none of whatever is no image."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from described_world import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits, load_sample_images

from perennial.model.transformers import ImageStatistics
from tasks.measures.described.images import (
    MOST_BYTES,
    NUMBERS,
    SIDE,
    THUMBNAIL,
    content,
    describe_image,
    digest,
    readable_images,
    thumbnail,
)


def _file(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **options)
    return made.getvalue()


def _told(raw: bytes) -> dict[str, float]:
    found = describe_image(raw)
    assert found is not None
    return dict(zip(NUMBERS, found, strict=True))


def _photograph(number: int = 0) -> Image.Image:
    return Image.fromarray(load_sample_images().images[number])


def test_a_photograph_is_described_as_it_is() -> None:
    flower = _photograph(1)
    told = _told(_file(flower))
    grey = np.asarray(flower.convert("L"), dtype=np.float64)
    assert told["brightness"] == pytest.approx(grey.mean(), abs=1)
    assert told["contrast"] == pytest.approx(grey.std(), abs=3)
    assert (told["width"], told["height"]) == flower.size
    assert 0.3 < told["colour"] <= 1
    assert _told(_file(flower.convert("L")))["colour"] == 0
    assert _told(_file(flower.convert("L").convert("RGB")))["colour"] == 0


def test_small_pictures_are_as_the_model_sees_them() -> None:
    for pixels in load_digits().images[:20]:
        raw = _file(Image.fromarray((pixels * 15).astype(np.uint8)))
        seen = ImageStatistics().fit(None).transform([raw])[0]
        told = _told(raw)
        values = [told[name] for name in ("brightness", "contrast", "width", "height")]
        assert values == pytest.approx(seen[:4].tolist())


def test_what_people_would_call_brighter_sharper_and_greyer() -> None:
    temple = _photograph()
    plain = _told(_file(temple))
    assert _told(_file(temple.point(lambda value: min(255, value + 60))))["brightness"] > plain["brightness"] + 30
    assert _told(_file(temple.filter(ImageFilter.GaussianBlur(4))))["sharpness"] < plain["sharpness"] / 2
    faded = Image.blend(temple, Image.new("RGB", temple.size, (128, 128, 128)), 0.7)
    assert _told(_file(faded))["contrast"] < plain["contrast"] / 2
    assert _told(_file(faded))["colour"] < plain["colour"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_kinds_and_modes(kind: str, mode: str) -> None:
    image = _photograph().resize((90, 60)).convert(mode)
    told = _told(_file(image.convert("RGB") if (kind, mode) in (("JPEG", "P"), ("WEBP", "P")) else image, kind))
    assert (told["width"], told["height"]) == (90, 60)
    assert 60 < told["brightness"] < 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "I;16", "F"])
def test_unusual_modes(mode: str) -> None:
    image = _photograph().resize((90, 60))
    made = image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    assert _told(_file(made, "TIFF"))["width"] == 90


def test_a_large_photograph_keeps_its_size_and_looks_alike() -> None:
    large = _photograph().resize((3_000, 2_000))
    for kind in ("JPEG", "PNG"):
        told, small = _told(_file(large, kind)), _told(_file(_photograph(), kind))
        assert (told["width"], told["height"]) == (3_000, 2_000)
        assert told["brightness"] == pytest.approx(small["brightness"], abs=2)
        assert told["colour"] == pytest.approx(small["colour"], abs=0.1)


def _bomb(side: int) -> bytes:
    """A PNG whose header promises side × side pixels, in a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    ends = chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + ends


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        b"GIF89a",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        picture(0)[:400],
        _bomb(12_000),
        _bomb(60_000),
        _bomb(0),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
    ids=["none", "empty", "cut", "postscript", "half", "large", "bomb", "nothing", "zeros"],
)
def test_what_is_no_picture_is_unreadable(raw: bytes | None) -> None:
    assert describe_image(raw) is None
    assert thumbnail(raw) is None


@given(st.one_of(st.binary(max_size=300), st.text(), st.none(), st.integers(), st.floats()))
def test_no_value_is_too_strange(value: object) -> None:
    assert describe_image(content(value)) is None or isinstance(value, bytes)
    assert thumbnail(value) is None or isinstance(value, bytes)


@given(st.integers(0, 2_000), st.integers(0, 255))
def test_a_broken_byte_raises_nothing(place: int, byte: int) -> None:
    raw = bytearray(picture(1))
    raw[place % len(raw)] = byte
    found = describe_image(bytes(raw))
    assert found is None or all(np.isfinite(value) for value in found)


def test_paths_are_read_and_pipes_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(picture(3))
    assert describe_image(content(str(path))) == describe_image(picture(3))
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(MOST_BYTES + 1)
    for other in ("pipe", "large", "absent", ".", "a\0b", "x" * 5_000):
        assert content(str(tmp_path / other) if "\0" not in other else other) is None


def test_equal_files_have_equal_digests() -> None:
    assert digest(picture(4)) == digest(picture(4)) != digest(picture(5))


def test_thumbnails_are_small_and_made_anew() -> None:
    raw = _file(_photograph(), "JPEG", comment=b"secret", quality=95)
    assert b"secret" in raw
    made = thumbnail(raw)
    assert made is not None
    assert b"secret" not in made
    with Image.open(io.BytesIO(made)) as image:
        assert max(image.size) == THUMBNAIL
        assert image.format == "JPEG"
    assert len(made) < 8_000
    assert SIDE > THUMBNAIL


def test_unreadable_ones_are_none_for_a_model() -> None:
    rows = pd.DataFrame({"photo": pd.Series([picture(0), b"x", None], dtype=object), "n": [1, 2, 3]})
    assert [value is None for value in readable_images(rows, ["photo"])["photo"]] == [False, True, True]
    assert readable_images(rows, []) is not None
