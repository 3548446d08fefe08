"""Files are read whole or in chunks, with the same types; what can't be read is named."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from small_model import RAW

from perennial.definition import ModelDefinition
from perennial.errors import DataError
from tasks.rows.files import read_file, read_in_chunks, read_parts
from tasks.rows.normal_form import normalise

FEATURES = {"numeric": ["ink", "lead_time"], "categorical": ["zip"], "text": ["note"]}


@pytest.fixture
def definition() -> ModelDefinition:
    return ModelDefinition.model_validate(RAW)


@pytest.fixture
def mixed() -> ModelDefinition:
    return ModelDefinition.model_validate(RAW | {"features": FEATURES, "gate": {}})


def test_files_by_their_ending(tmp_path: Path, definition: ModelDefinition) -> None:
    frame = pd.DataFrame({"ink_00": [1.5, 2.5], "shade": ["x", "y"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.PARQUET")
    with gzip.open(tmp_path / "a.v1.csv.gz", "wt") as file:
        file.write((tmp_path / "a.csv").read_text())
    for name in ("a.csv", "a.jsonl", "a.PARQUET", "a.v1.csv.gz"):
        made = read_file(tmp_path / name, definition)
        assert made["ink_00"].tolist() == [1.5, 2.5]
        assert made["shade"].tolist() == ["x", "y"]


def test_a_parquet_file_that_breaks_off_is_told_after_its_good_parts_and_may_be_left_early(
    tmp_path: Path, definition: ModelDefinition
) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"ink_00": [float(number) for number in range(30)]}).to_parquet(path, row_group_size=10)
    assert [part["ink_00"].tolist()[0] for part in read_parts(path, definition, 10)] == [0, 10, 20]
    parts = read_parts(path, definition, 10)
    assert next(parts)["ink_00"].tolist() == list(range(10))
    parts.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
    content = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(0).dictionary_page_offset
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    parts = read_parts(path, definition, 10)
    assert next(parts)["ink_00"].tolist() == list(range(10))
    with pytest.raises(DataError, match=r"a.parquet can't be read"):
        next(parts)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.xlsx", b"", "is no file that can be read. Give one of .parquet, .csv, .csv.gz, .jsonl"),
        ("a.parquet", b"no parquet", "can't be read: "),
        ("a.csv", b"", "can't be read: there is no header in it. Check the file"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "has lines with more cells than its header: '1,2,3'. Name every column"),
        ("a.csv", b"a\n\xff\xfe\n", "conversion error to string: invalid UTF8 data"),
        ("a.csv", b"a,b\n1,2\n3", "is cut off or broken: a line has 1 cells, the header 2: '3'. Write it anew"),
        ("a.csv", b"a,b\n1\n3,4\n", "is cut off or broken: a line has 1 cells, the header 2: '1'. Write it anew"),
        ("a.csv", b'a,b\n1,2\n3,"cut', "ends within a quoted cell: it is cut off"),
        ("a.csv", b'a,b\n1,2\n3,"cut\n4,5\n', "ends within a quoted cell: it is cut off"),
        ("a.jsonl", b'{"a": 1}\n{"a": 2', "line 2 is no JSON object, or cut off"),
        ("a.jsonl", b"\n", "holds no record. Check the file"),
        ("a.jsonl", b"{", "can't be read: "),
        ("a.csv.gz", b"no gzip", "can't be read: Not a gzipped file"),
        ("a.csv", b"a,b\n1,2,3\n4,5,6\n", "has lines with more cells than its header: '1,2,3'. Name every"),
    ],
)  # fmt: skip
def test_a_file_that_can_t_be_read(
    tmp_path: Path, definition: ModelDefinition, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_file(tmp_path / name, definition)
    assert str(caught.value).startswith(f"{tmp_path / name} ")
    assert problem in str(caught.value)


def test_a_missing_file(tmp_path: Path, definition: ModelDefinition) -> None:
    with pytest.raises(DataError, match=r"none\.csv does not exist. Check the path"):
        read_file(tmp_path / "none.csv", definition)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl"])
def test_names_stay_as_they_are_written(tmp_path: Path, name: str) -> None:
    features = {"numeric": ["ink"], "categorical": ["zip"], "text": ["note"]}
    definition = ModelDefinition.model_validate(RAW | {"features": features, "positive": "1", "gate": {}})
    frame = pd.DataFrame(
        {
            "row": ["007", "1e3"],
            "zip": ["01234", None],
            "note": ["1.0", "true"],
            "ink": [1.5, None],
            "even": ["1", None],
        }
    )
    if name == "a.jsonl":
        frame.to_json(tmp_path / name, orient="records", lines=True)
    else:
        frame.to_csv(tmp_path / name, index=False)
    found = read_file(tmp_path / name, definition)

    assert found["row"].tolist() == ["007", "1e3"]
    assert found["note"].tolist() == ["1.0", "true"]
    for column in ("zip", "even"):
        assert found[column].tolist()[0] == frame[column][0]
        assert pd.isna(found[column][1])
    assert found["ink"].tolist()[0] == 1.5
    assert pd.api.types.is_float_dtype(found["ink"])


# --- in chunks ---


def mixed_rows(count: int) -> pd.DataFrame:
    """Rows whose cells look different in every part: gaps, whole numbers, names that look like numbers."""
    numbers = range(count)
    return pd.DataFrame(
        {
            "row": [f"{number:03d}" for number in numbers],
            "when": [f"2025-01-01T00:{number % 60:02d}:00Z" for number in numbers],
            "ink": [None if number < 10 else number if number < 20 else number / 7 for number in numbers],
            "lead_time": [40_000_000 + number for number in numbers],
            "zip": [None if 10 <= number < 20 else f"{number:05d}" for number in numbers],
            "note": ["1.0" if number < 10 else "true" if number < 20 else "late, again" for number in numbers],
            "more": [{"a": 1}] * count,
        }
    )


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        lines = [{name: cell for name, cell in row.items() if cell == cell} for row in frame.to_dict("records")]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz", "a.jsonl"])
def test_chunks_have_the_cells_of_the_whole(tmp_path: Path, mixed: ModelDefinition, name: str) -> None:
    path = write(mixed_rows(45), tmp_path / name)
    chunks = list(read_in_chunks(path, mixed, 10))
    assert [len(chunk) for chunk in chunks] == [10, 10, 10, 10, 5]
    assert sorted(chunks[0].columns) == sorted(["row", "when", *mixed.features.columns])
    found = pd.concat([normalise(chunk, mixed) for chunk in chunks], ignore_index=True)
    pd.testing.assert_frame_equal(found, normalise(read_file(path, mixed), mixed))
    assert (found["_id"][7], found["zip"][7], found["note"][0]) == ("007", "00007", "1.0")
    assert found["lead_time"][3] == 40_000_003


@pytest.mark.timeout(60)
def test_a_chunk_is_given_before_the_rest_is_read(tmp_path: Path, mixed: ModelDefinition) -> None:
    pipe, given, late = tmp_path / "endless.csv", threading.Event(), []
    os.mkfifo(pipe)
    lines = mixed_rows(2000)[["row", "when", *mixed.features.columns]].to_csv(index=False).splitlines(keepends=True)

    def write_slowly() -> None:
        with pipe.open("w") as file:
            file.writelines([lines[0], *lines[1:] * 200])
            file.flush()
            late.append(not given.wait(20))
            file.writelines(lines[1:])

    writer = threading.Thread(target=write_slowly)
    writer.start()
    count = 0
    for chunk in read_in_chunks(pipe, mixed, 1000):
        given.set()
        count += len(chunk)
    writer.join()
    assert late == [False]
    assert count == 402_000


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_missing_columns_are_told_at_once_with_all_that_are_there(
    tmp_path: Path, mixed: ModelDefinition, name: str
) -> None:
    path = write(mixed_rows(25).drop(columns=["note", "zip"]), tmp_path / name)
    with pytest.raises(DataError, match=r"the columns zip, note are missing; there are .*more") as caught:
        next(read_in_chunks(path, mixed, 10))
    assert "Rename them" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"row,when,ink,lead_time,zip,note\n" + b"1,2025-01-01,1,1,1,1\n" * 45 + b"1,2,3,4,5,6,7\n",
         "has lines with more cells than its header"),
        ("a.csv", b"row,when,ink,lead_time,zip,note\n" + b"1,2025-01-01,1,1,1,1,7\n" * 3,
         "has lines with more cells than its header"),
        ("a.csv", b"", "can't be read: there is no header"),
        ("a.jsonl", b"3\n{", "can't be read: "),
        ("a.jsonl", b"[[1]]\n", "line 1 is no JSON object"),
        ("a.txt", b"", "is no file that can be read"),
    ],
)  # fmt: skip
def test_a_file_that_breaks_on_the_way(
    tmp_path: Path, mixed: ModelDefinition, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_in_chunks(tmp_path / name, mixed, 10))
    assert problem in str(caught.value)
