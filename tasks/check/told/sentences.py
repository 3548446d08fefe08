"""What a check tells beside its verdict, as people read it: sentences from a decision's evidence. Nothing is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_SLICES = 8


def moved_lines(evidence: Mapping[str, Any]) -> list[str]:
    """What moved, by what it does to the predictions; none where nothing did."""
    return [_moved(item) for item in evidence.get("effects", ())]


def slice_lines(evidence: Mapping[str, Any]) -> list[str]:
    """Slices that have fallen, moved, or that training did not have; the others are counted."""
    slices = evidence.get("slices", ())
    told = [item for item in slices if _is_news(item)]
    lines = [_slice(item, (evidence.get("loss") or {}).get("name", "loss")) for item in told[:MOST_SLICES]]
    if slices:
        rest = len(slices) - len(lines)
        if rest:
            lines.append(f"{rest} {'other ' if lines else ''}slices, none of which has surely fallen or moved")
    return lines


def segment_lines(evidence: Mapping[str, Any]) -> list[str]:
    """The weak segments that were found, or how many were looked at in vain; none where nobody looked."""
    found = evidence.get("segments")
    if not found:
        return []
    if not found["looked_at"]:
        return [f"too few rows ({found.get('rows', evidence.get('rows', 0)):,}) to look for weak segments"]
    what = "segments of single columns" if found["columns"] == 1 else "segments of one or two columns"
    if not found["found"]:
        return [f"none of {found['looked_at']:,} {what} is surely worse than the rest"]
    lines = [_segment(item, found["metric"]) for item in found["found"]]
    more = found["of"] - len(lines)
    return [*lines, f"{found['of']} of {found['looked_at']:,} {what} are surely worse than the rest"
            + (f"; the {len(lines)} surest are told" if more else "")]  # fmt: skip


def sections(evidence: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Headings with their sentences, those that have any."""
    for title, lines in (
        ("What moved, by what it does to the predictions", moved_lines(evidence)),
        ("Slices", slice_lines(evidence)),
        ("Weak segments", segment_lines(evidence)),
    ):
        if lines:
            yield title, lines


def _moved(item: Mapping[str, Any]) -> str:
    told = f"{item['column']}, {item['ratio']:.2f}× its limit: "
    if item["change"] is None:
        return told + "what it does to the predictions was not measured"
    if item["change"] == 0:
        return told + "predictions are as they would be with the training's values"
    told += f"a prediction lies {item['change']:.3g} from what it would be with the training's values"
    if item["shift"] is None or abs(item["shift"]) < 0.2 * item["change"]:
        return told
    return f"{told}, on average {abs(item['shift']):.3g} {'above' if item['shift'] > 0 else 'below'} it"


def _is_news(item: Mapping[str, Any]) -> bool:
    quality = item["quality"] or {}
    return bool(quality.get("fell")) or bool(item["moved"]) or item["share_in_training"] == 0


def _slice(item: Mapping[str, Any], loss: str) -> str:
    told = f"{item['slice']}: {item['rows']:,} rows, {item['share']:.1%} ({item['share_in_training']:.1%} in training)"
    if quality := item["quality"]:
        told += f"; {loss} {quality['loss']:.4g} [{quality['low']:.4g}, {quality['high']:.4g}]"
        if "at_promotion" in quality:
            told += f", {quality['at_promotion']:.4g} at promotion"
        if quality["fell"]:
            told += ": surely worse"
    if item["moved"]:
        told += "; moved: " + ", ".join(f"{part['column']} {part['ratio']:.2f}× its limit" for part in item["moved"])
    return told


def _segment(item: Mapping[str, Any], metric: str) -> str:
    told = (
        f"{item['where']}: {metric} {item['loss']:.4g} on {item['rows']:,} rows, {item['elsewhere']:.4g} elsewhere; "
        f"more by {item['lift_low']:.3g} to {item['lift_high']:.3g}"
    )
    if before := item.get("at_promotion"):
        told += f"; at promotion {before['loss']:.4g} [{before['low']:.4g}, {before['high']:.4g}]"
    return told
