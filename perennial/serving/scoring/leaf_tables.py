"""All trees of a boosted model at once, in arrays: a table per feature, no walk down a tree. It knows no estimator.

A tree's leaves are bits from left to right. A split that a row fails, so that it goes right, takes the leaves below its
left child away; the leftmost that stays is the row's leaf (Lucchese and others, "QuickScorer", SIGIR 2015, theorem 1).
What all splits on one feature take away depends on the feature's value alone: between two neighbouring thresholds, or
for one category, it is the same. So each feature has a table with a line per such range, a word of bits per tree; a row
is the AND of one line per feature, and the first bit of each word names the tree's leaf.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint32]
_BITS = 32
_NUMERIC, _CATEGORICAL = 1, 2  # treelite's node types, and its operator `<=`
_AT_MOST = 3
_MOST_BYTES = 64 * 2**20
_BLOCK_ROWS, _FEW_ROWS = 256, 5
_EXPONENT_SHIFT, _EXPONENT_BIAS = 52, 1023


class Untabled(Exception):
    """The trees are of a kind, or a number, that has no tables."""


@dataclass
class _Split:
    tree: int
    left_leaves: tuple[int, int]
    missing_left: bool
    threshold: float = 0.0
    categories: npt.NDArray[np.int64] | None = None
    listed_left: bool = True


@dataclass
class _Feature:
    """Where a feature's lines lie in the table of all: one per range or category, then those of others and missing."""

    column: int
    first: int
    thresholds: Floats | None
    categories: int = 0
    sorted_thresholds: list[float] = field(default_factory=list)

    def line(self, value: float) -> int:
        """The line of one value."""
        if self.thresholds is not None:
            count = len(self.sorted_thresholds)
            return self.first + (bisect_left(self.sorted_thresholds, value) if value == value else count + 1)
        if value != value:
            return self.first + self.categories + 1
        return self.first + (int(value) if 0 <= value < self.categories else self.categories)

    def lines(self, values: Floats, missing: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
        """The lines of many; `missing` is None where none is."""
        if self.thresholds is not None:
            found = self.thresholds.searchsorted(values)
        else:
            known = (values >= 0) & (values < self.categories)
            found = np.where(known, values, self.categories).astype(np.int64)
        if missing is not None:  # a missing value stands after all thresholds, and is no category: one line further on
            found += missing
        found += self.first
        return found


class LeafTables:
    """The tables of one model.

    Args:
        model: As treelite imports a boosted model: one value a leaf, `<=` and lists of categories in its splits.

    Raises:
        Untabled: It has something else, or more than one output, or its tables would be larger than 64 MiB.
    """

    def __init__(self, model: Any) -> None:
        header = model.get_header_accessor()
        self.activation = _activation(header)
        self._base = float(header.get_field("base_scores")[0])
        trees = [_Tree(model.get_tree_accessor(number), number) for number in range(model.num_tree)]
        self._words = max(1, -(-max(tree.leaf_count for tree in trees) // _BITS))
        width = len(trees) * self._words
        values = np.zeros((len(trees), self._words * _BITS))
        by_feature: dict[int, list[_Split]] = {}
        for tree in trees:
            values[tree.number, : tree.leaf_count] = tree.values
            for column, split in tree.splits:
                by_feature.setdefault(column, []).append(split)
        self._starts = np.arange(0, values.size, self._words * _BITS)
        self._values: Floats = values.ravel()
        self._features: list[_Feature] = []
        total = 0
        for column, splits in sorted(by_feature.items()):
            feature = _feature(column, total, splits)
            total += (feature.categories if feature.thresholds is None else len(feature.thresholds)) + 2
            self._features.append(feature)
            if total * width * 4 > _MOST_BYTES:
                raise Untabled(f"tables of more than {_MOST_BYTES >> 20} MiB")
        if not self._features:
            raise Untabled("trees without a split")
        table = np.full((total, len(trees), self._words), 0xFFFFFFFF, dtype=np.uint32)
        for feature in self._features:
            for split in by_feature[feature.column]:
                _take_away(table, feature, split)
        self._table: Words = table.reshape(total, width)

    def scores(self, values: Floats) -> Floats:
        """The model's answers: float64 of shape (n,), for values of shape (n, features), NaN for missing."""
        if len(values) <= _FEW_ROWS:
            return self.activation(np.array([self._one(row) for row in values.tolist()]))
        parts = [self._block(values[at : at + _BLOCK_ROWS]) for at in range(0, len(values), _BLOCK_ROWS)]
        return self.activation(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def _one(self, row: list[float]) -> float:
        lines = [feature.line(row[feature.column]) for feature in self._features]
        left = np.bitwise_and.reduce(self._table.take(lines, axis=0), axis=0)
        return self._base + float(self._values.take(self._leaves(left[None])[0]).sum())

    def _block(self, values: Floats) -> Floats:
        table, left = self._table, None
        line = np.empty((len(values), table.shape[1]), dtype=np.uint32)
        missing: npt.NDArray[np.bool_] = np.isnan(values)
        lacking = set(np.flatnonzero(missing.any(axis=0)).tolist())
        for feature in self._features:
            column = feature.column
            lines = feature.lines(values[:, column], missing[:, column] if column in lacking else None)
            if left is None:
                left = table.take(lines, axis=0)
            else:
                table.take(lines, axis=0, out=line, mode="clip")
                np.bitwise_and(left, line, out=left)
        assert left is not None
        margins: Floats = self._base + self._values.take(self._leaves(left)).sum(axis=1)
        return margins

    def _leaves(self, left: Words) -> npt.NDArray[np.int64]:
        """Where the leftmost leaves' values lie, of shape (n, trees)."""
        first, place = left, np.int64(_BITS - 1)
        if self._words > 1:
            words = left.reshape(len(left), -1, self._words)
            chosen = (words != 0).argmax(axis=2)
            first = np.take_along_axis(words, chosen[:, :, None], axis=2)[:, :, 0]
            place = chosen * _BITS + (_BITS - 1)
        # A double holds 32 bits exactly: its exponent is the place of the highest.
        exponents = (first.astype(np.float64).view(np.int64) >> _EXPONENT_SHIFT) - _EXPONENT_BIAS
        leaves: npt.NDArray[np.int64] = place - exponents + self._starts
        return leaves


class _Tree:
    """One tree's leaves from left to right, and which of them each split would take away."""

    def __init__(self, accessor: Any, number: int) -> None:
        self.number = number
        part = accessor.get_field
        self._left, self._right = part("cleft").tolist(), part("cright").tolist()
        if len(part("leaf_vector")):
            raise Untabled("leaves of several values")
        order: list[int] = []
        spans = self._spans(order)
        self.leaf_count = len(order)
        self.values = part("leaf_value")[order]
        kinds, operators = part("node_type"), part("cmp")
        columns, thresholds, missing_left = part("split_index"), part("threshold"), part("default_left")
        listed, begin, end = part("category_list"), part("category_list_begin"), part("category_list_end")
        on_right = part("category_list_right_child")
        self.splits: list[tuple[int, _Split]] = []
        for node, left in enumerate(self._left):
            if left < 0:
                continue
            split = _Split(number, spans[left], bool(missing_left[node]))
            if kinds[node] == _CATEGORICAL:
                split.categories = listed[begin[node] : end[node]].astype(np.int64)
                split.listed_left = not on_right[node]
            elif kinds[node] == _NUMERIC and operators[node] == _AT_MOST:
                split.threshold = float(thresholds[node])
            else:
                raise Untabled("splits of another kind")
            self.splits.append((int(columns[node]), split))

    def _spans(self, order: list[int]) -> dict[int, tuple[int, int]]:
        """For each node the leaves below it, counted from left to right; the leaves' nodes go to `order`."""
        spans: dict[int, tuple[int, int]] = {}
        waiting = [(0, False)]
        while waiting:
            node, below_done = waiting.pop()
            if self._left[node] < 0:
                spans[node] = (len(order), len(order) + 1)
                order.append(node)
            elif below_done:
                spans[node] = (spans[self._left[node]][0], spans[self._right[node]][1])
            else:
                waiting += [(node, True), (self._right[node], False), (self._left[node], False)]
        return spans


def _feature(column: int, first: int, splits: list[_Split]) -> _Feature:
    listed = [split.categories for split in splits if split.categories is not None]
    if not listed:
        thresholds = np.unique([split.threshold for split in splits])
        return _Feature(column, first, thresholds, sorted_thresholds=thresholds.tolist())
    if len(listed) < len(splits):
        raise Untabled("a feature of numbers and categories")
    return _Feature(column, first, None, max((int(part.max()) for part in listed if len(part)), default=-1) + 1)


def _take_away(table: npt.NDArray[np.uint32], feature: _Feature, split: _Split) -> None:
    """On the lines of values that fail the split, clear the leaves below its left child."""
    if feature.thresholds is not None:
        count = len(feature.thresholds)
        passes = np.arange(count + 2) <= np.searchsorted(feature.thresholds, split.threshold)
    else:
        count = feature.categories
        assert split.categories is not None
        passes = np.zeros(count + 2, dtype=np.bool_)
        passes[split.categories] = True
        passes = passes == split.listed_left
    passes[count + 1] = split.missing_left
    kept = np.zeros(table.shape[2] * _BITS, dtype=np.uint8)
    kept[split.left_leaves[0] : split.left_leaves[1]] = 1
    mask = ~np.packbits(kept).view(">u4").astype(np.uint32)
    table[feature.first + np.flatnonzero(~passes), split.tree] &= mask


def _activation(header: Any) -> Callable[[Floats], Floats]:
    if header.get_field("num_target")[0] != 1 or header.get_field("num_class").tolist() != [1]:
        raise Untabled("several outputs")
    if header.get_field("average_tree_output")[0]:
        raise Untabled("trees that are averaged")
    name, alpha = header.get_field("postprocessor"), float(header.get_field("sigmoid_alpha")[0])
    if name == "identity":
        return lambda margins: margins
    if name == "sigmoid" and alpha == 1.0:
        from scipy.special import expit

        return lambda margins: np.asarray(expit(margins), dtype=np.float64)
    if name == "exponential":
        return np.exp
    raise Untabled(f"the output {name}")
