"""The fitted preprocessing of the built-in pipelines, cell by cell and without pandas. Fits nothing, scores nothing.

What a category becomes is not computed anew but asked of the fitted encoder, once for each category, for a missing
and for an unseen one: so whatever it does with rare or missing values is what the table says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from perennial.model.known import encoded_categories
from perennial.serving.protocol.columns import Columns, Row, Rows, column_of, matrix_of, moments_of
from perennial.serving.protocol.schema import Schema

Floats = npt.NDArray[np.float64]
Block = Callable[[Rows], Floats]
Cells = Callable[[Row], list[float]]
_UNSEEN = "\0unseen"


class Unsupported(Exception):
    """This pipeline has a part that only scikit-learn itself can compute."""


class Encoder:
    """Clean rows to the matrix that the pipeline's estimator reads.

    Args:
        preprocess: The fitted ColumnTransformer of a built-in pipeline.
        schema: The order of the rows' cells.

    Raises:
        Unsupported: A step is of a kind that is not known here.
    """

    def __init__(self, preprocess: Any, schema: Schema) -> None:
        self._blocks: list[Block] = []
        cells: list[Cells | None] = []
        for name, step, columns in preprocess.transformers_:
            if name == "remainder":
                continue
            positions = [schema.position[column] for column in ([columns] if isinstance(columns, str) else columns)]
            self._blocks.append(_block(step, positions, isinstance(columns, str)))
            cells.append(_plain_cells(step, positions))
        # Where every part is a number for each cell, one array is made instead of several.
        self._cells = [part for part in cells if part is not None] if None not in cells else None

    def encode(self, rows: Rows) -> Floats:
        """float64 of shape (n, width)."""
        if self._cells is not None and not isinstance(rows, Columns):
            return np.array([[cell for part in self._cells for cell in part(row)] for row in rows], dtype=np.float64)
        blocks = [block(rows) for block in self._blocks]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)


def known_categories(preprocess: Any, schema: Schema) -> tuple[frozenset[str] | None, ...]:
    """For each column the categories that its fitted encoder has seen; None for the others."""
    known = encoded_categories(preprocess)
    return tuple(known.get(name) for name in schema.columns)


def _block(step: Any, positions: list[int], single: bool) -> Block:
    kind = type(step).__name__
    if kind == "EmptyColumns":
        return _numbers(positions, np.asarray(step.empty_))
    if kind == "OrdinalEncoder":
        return _codes(step, positions)
    if kind == "OneHotEncoder":
        return _indicators(step, positions)
    if kind == "Pipeline" and [type(part).__name__ for _, part in step.steps] == ["SimpleImputer", "StandardScaler"]:
        return _through(step, positions)
    if kind == "Pipeline" and [type(part).__name__ for _, part in step.steps][:1] == ["DateParts"]:
        return _moments(step, positions)
    if kind == "TextVectors" and single:
        return lambda rows: _dense(step.transform(column_of(rows, positions[0])))
    if kind == "Pipeline" and single and type(step.steps[0][1]).__name__ == "ImageStatistics":
        return lambda rows: np.asarray(step.transform(column_of(rows, positions[0])), dtype=np.float64)
    raise Unsupported(f"the preprocessing step {kind}")


def _plain_cells(step: Any, positions: list[int]) -> Cells | None:
    """A row's numbers where each comes from one cell alone; None where they don't."""
    kind, first, last = type(step).__name__, positions[0], positions[-1] + 1
    if kind == "EmptyColumns" and not step.empty_.any() and positions == list(range(first, last)):
        return lambda row: row[first:last]
    if kind == "OrdinalEncoder":
        pairs = _lookups(step, positions)
        return lambda row: [get(row[position], unseen) for position, get, unseen in pairs]
    return None


def _dense(values: Any) -> Floats:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)


def _numbers(positions: list[int], empty: npt.NDArray[np.bool_]) -> Block:
    filled = _filling(empty)
    return lambda rows: filled(matrix_of(rows, positions))


def _filling(empty: npt.NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """Zeros in the columns that were empty."""
    return (lambda values: np.where(empty, 0.0, values)) if empty.any() else (lambda values: values)


def _moments(step: Any, positions: list[int]) -> Block:
    """Moments by the fitted transformer itself, then what follows it."""
    parts, after = step.steps[0][1], step.steps[1][1]
    finish = _filling(np.asarray(after.empty_)) if type(after).__name__ == "EmptyColumns" else _scaling(after)

    def block(rows: Rows) -> Floats:
        counted = [moments_of(column_of(rows, position)) for position in positions]
        return finish(parts.transform(np.stack(counted, axis=1)))

    return block


def _through(step: Any, positions: list[int]) -> Block:
    scaled = _scaling(step)
    return lambda rows: scaled(matrix_of(rows, positions))


def _scaling(step: Any) -> Callable[[Floats], Floats]:
    """Median imputation with indicators, then scaling, in the order and the operations of scikit-learn."""
    imputer, scaler = step.steps[0][1], step.steps[1][1]
    statistics = np.asarray(imputer.statistics_, dtype=np.float64)
    # A column that was always missing is kept and filled with zero.
    fill = np.where(np.isnan(statistics), 0.0, statistics)
    indicated = imputer.indicator_.features_ if imputer.indicator_ is not None else np.array([], dtype=np.int64)
    mean, scale = np.asarray(scaler.mean_), np.asarray(scaler.scale_)

    def scaled(values: Floats) -> Floats:
        missing = np.isnan(values)
        whole = np.concatenate([np.where(missing, fill, values), missing[:, indicated]], axis=1)
        return np.asarray((whole - mean) / scale, dtype=np.float64)

    return scaled


def _tables(step: Any) -> list[tuple[dict[Any, Floats], Floats]]:
    """For each column: what each category and None become, and what an unseen one becomes."""
    names = list(step.feature_names_in_)
    text = pd.StringDtype(na_value=np.nan)
    filler = {
        name: next((value for value in values if isinstance(value, str)), None)
        for name, values in zip(names, step.categories_, strict=True)
    }
    tables = []
    for name, values in zip(names, step.categories_, strict=True):
        cells: list[str | None] = [value for value in values if isinstance(value, str)]
        probed = {other: [filler[other]] * (len(cells) + 2) for other in names} | {name: [*cells, None, _UNSEEN]}
        probe = pd.DataFrame({other: pd.Series(pd.array(column, dtype=text)) for other, column in probed.items()})
        made = _dense(step.transform(probe))
        tables.append((dict(zip([*cells, None], made[:-1], strict=True)), made[-1]))
    return tables


def _lookups(step: Any, positions: list[int]) -> list[tuple[int, Callable[[Any, float], float], float]]:
    """For each column its position, its table's look-up, and what an unseen category becomes."""
    found = []
    for index, (position, (table, unseen)) in enumerate(zip(positions, _tables(step), strict=True)):
        codes: dict[Any, float] = {value: float(row[index]) for value, row in table.items()}
        found.append((position, codes.get, float(unseen[index])))
    return found  # type: ignore[return-value]


def _codes(step: Any, positions: list[int]) -> Block:
    pairs = _lookups(step, positions)

    def block(rows: Rows) -> Floats:
        codes = [[get(cell, unseen) for cell in column_of(rows, p)] for p, get, unseen in pairs]
        return np.array(codes, dtype=np.float64).T

    return block


def _indicators(step: Any, positions: list[int]) -> Block:
    widths = [len(part) for part in _spans(step)]
    ends = np.cumsum(widths)
    parts = []
    for position, (table, unseen), width, end in zip(positions, _tables(step), widths, ends, strict=True):
        cut = slice(int(end - width), int(end))
        lines = np.array([*(row[cut] for row in table.values()), unseen[cut]], dtype=np.float64)
        parts.append((position, {value: line for line, value in enumerate(table)}.get, len(table), lines))

    def block(rows: Rows) -> Floats:
        made = [lines[[get(cell, other) for cell in column_of(rows, p)]] for p, get, other, lines in parts]
        return np.concatenate(made, axis=1)

    return block


def _spans(step: Any) -> list[list[str]]:
    """The output columns of each input column of a fitted OneHotEncoder."""
    names = list(step.feature_names_in_)
    total = [
        len(values) - (0 if rare is None else len(rare) - 1)
        for values, rare in zip(
            step.categories_, step.infrequent_categories_ if _has_rare(step) else [None] * len(names), strict=True
        )
    ]
    return [[name] * count for name, count in zip(names, total, strict=True)]


def _has_rare(step: Any) -> bool:
    return bool(getattr(step, "_infrequent_enabled", False))
