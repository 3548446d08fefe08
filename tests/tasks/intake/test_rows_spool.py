"""A delivery's rows come out of the spool as they went in, however they came in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from tasks.intake.spool import Spool

COLUMNS: dict[str, list[Any]] = {
    "whole": [pd.Series([1, 2**60]), pd.Series([3])],
    "floats": [pd.Series([0.1, np.nan]), pd.Series([np.inf])],
    "whole, then with a gap": [pd.Series([1, 2]), pd.Series([np.nan])],
    "nullable": [pd.Series([1, None], dtype="Int64"), pd.Series([3], dtype="Int64")],
    "truth values": [pd.Series([True, False]), pd.Series([True])],
    "texts": [pd.Series(["é", None], dtype="str"), pd.Series([""], dtype="str")],
    "texts of which a part has none": [pd.Series([None, None], dtype="object"), pd.Series(["a"], dtype="object")],
    "times": [pd.Series(pd.to_datetime(["2020-01-01 10:00:00.000001", None], utc=True)).dt.as_unit("us")] * 2,
    "categories": [pd.Series(["a", "b"], dtype="category"), pd.Series(["c"], dtype="category")],
    "bytes": [pd.Series([b"1", None]), pd.Series([b"2"])],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_joined_as_pandas_joins_them(name: str) -> None:
    parts = [column.to_frame("column") for column in COLUMNS[name]]
    for start, part in zip((0, 7), parts, strict=True):
        part.index = pd.RangeIndex(start, start + len(part))  # positions have gaps where rows were refused
    with Spool() as spool:
        for part in parts:
            spool.add(part)
        alone = list(spool.parts())
        assert_frame_equal(spool.take(["column"]), pd.concat(alone))
        assert spool.positions().tolist() == [place for part in parts for place in part.index]
        told = [table.to_pandas()["column"].isna().tolist() for table in spool.tables(["column"])]
    assert told == [part["column"].isna().tolist() for part in parts]


def test_a_missing_number_is_null_in_arrow_from_one_part_and_from_several() -> None:
    part = pd.DataFrame({"x": [1.5, np.nan]})
    for parts in ([part], [part, part]):
        with Spool() as spool:
            for one in parts:
                spool.add(one)
            assert [table["x"].to_pylist() for table in spool.tables(["x"])] == [[1.5, None]] * len(parts)
