"""A decision as people read it: text for the terminal, Markdown for the artifact. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.check.complaints.complaint import read_complaints
from tasks.check.decision import Decision
from tasks.check.plain import summary
from tasks.check.signal import Signal
from tasks.check.told.sentences import sections
from tasks.review.basis import sentences

MARKS = {"hold": "✓", "recalibrate": "↻", "retrain": "▲", "repair": "✗"}
TOLD_REASONS = 3


def render_text(decision: Decision, examples: Sequence[str] = (), *, width: int = 100) -> str:
    """The record for a terminal, with lines of examples of what moved."""
    title = f"{decision.model} v{decision.champion_version}, as of {decision.as_of:%Y-%m-%d %H:%M} UTC"
    lines = [f"{MARKS[decision.verdict]} {decision.verdict.upper()}  {title}", ""]
    lines += [line for sentence in summary(decision) for line in _wrapped(sentence, width, "  ")]
    lines += ["", "Why", *_bullets(decision.reasons[:TOLD_REASONS], width)]
    if len(decision.reasons) > TOLD_REASONS:
        lines.append(f"  … and {len(decision.reasons) - TOLD_REASONS} more")
    lines += ["", "Signals"] + [_signal_line(signal) for signal in _told(decision)]
    for title, told in sections(decision.evidence):
        lines += ["", title, *_bullets(tuple(told), width)]
    if decision.would_change:
        lines += ["", "What would have changed it", *_bullets(decision.would_change, width)]
    lines += ["", "Evidence", *_bullets(tuple(evidence_lines(decision)), width)]
    if examples:
        lines += ["", "Examples of what moved", *(f"  {line}" for line in examples)]
    lines += ["", "Next", *_bullets((decision.next_step,), width)]
    lines += ["", f"decision {decision.decision_id}, policy {decision.policy}"]
    return "\n".join(lines) + "\n"


def render_markdown(decision: Decision) -> str:
    """The record for an artifact."""
    lines = [
        f"# {decision.model}: {decision.verdict}",
        "",
        f"Version {decision.champion_version}, as of {decision.as_of:%Y-%m-%d %H:%M} UTC.",
        "",
        _escape(" ".join(summary(decision))),
        "",
        decision.next_step,
        "",
        "## Why",
        "",
        *(f"{number}. {_escape(reason)}" for number, reason in enumerate(decision.reasons[:TOLD_REASONS], 1)),
        "",
        "## Signals",
        "",
        "| signal | value | limit | where the limit comes from | |",
        "|---|---:|---:|---|---|",
    ]
    for signal in _told(decision):
        cells = (signal.name, _number(signal.value), _number(signal.threshold), signal.threshold_source, _state(signal))
        lines.append("| " + " | ".join(_escape(cell) for cell in cells) + " |")
    for title, told in sections(decision.evidence):
        lines += ["", f"## {title}", ""] + [f"- {_escape(text)}" for text in told]
    if decision.would_change:
        lines += ["", "## What would have changed it", ""] + [f"- {_escape(text)}" for text in decision.would_change]
    lines += ["", "## Evidence", ""] + [f"- {_escape(text)}" for text in evidence_lines(decision)]
    lines += ["", f"Decision `{decision.decision_id}`, policy `{decision.policy}`."]
    return "\n".join(lines) + "\n"


def evidence_lines(decision: Decision) -> list[str]:
    """How much the decision rests on, a sentence each."""
    known = decision.evidence
    lines = [
        f"{known['rows']} rows in the window from {_day(known['window_start'])}",
        _labels_line(known),
        *(known.get("intervention") or {}).get("told", ()),
        *sentences(known.get("review")),
        f"{known['labelled_rows']} labelled rows are at hand; the champion was trained on {known['trained_rows']}, "
        f"until {_day(known['trained_until'])}",
        f"{known['budget_used']} of {known['budget']} retrainings in the last 30 days",
    ]
    if known["cooldown_until"] and known["cooldown_until"] > decision.as_of.isoformat():
        lines.append(f"cooling down until {_day(known['cooldown_until'])}")
    if count := known["fruitless_retrainings"]:
        told = "the newest retraining" if count == 1 else f"{count} retrainings in a row"
        lines.append(f"{told} brought nothing: the bar is raised")
    return [*lines, *_complaint_lines(decision)]


def _complaint_lines(decision: Decision) -> list[str]:
    """What became of complaints at this check, and which wait for the truth of their rows."""
    lines = []
    for item in read_complaints([decision.to_dict()]):
        name = f"complaint of {item.opened:%Y-%m-%d %H:%M} ({item.name})"
        if item.settled == decision.as_of:
            lines.append(f"{name}: {item.state}. {item.reason}")
        elif item.state == "open":
            lines.append(f"{name}: from {item.since:%Y-%m-%d} on its rows teach nothing until their truth has come")
    return lines


def _labels_line(known: Mapping[str, Any]) -> str:
    if not known["mature_predictions"]:
        return "no prediction of this champion is old enough to have its label yet"
    return (
        f"{known['mature_labels']} of {known['mature_predictions']} mature predictions have labels "
        f"({known['coverage']:.0%}); by age: {_ages(known['coverage_by_age'])}"
    )


def _told(decision: Decision) -> list[Signal]:
    """Fired ones first, columns' drift only as far as it fired or leads."""
    columns = [s for s in decision.signals if s.name.startswith("drift of ")]
    shown = {s.name for s in columns if s.fired} | {s.name for s in columns[:TOLD_REASONS]}
    kept = [s for s in decision.signals if not s.name.startswith("drift of ") or s.name in shown]
    return sorted(kept, key=lambda s: (not s.persistent, not s.fired))


def _signal_line(signal: Signal) -> str:
    beside = f"{_number(signal.value):>10} / {_number(signal.threshold):<10}"
    return f"  {signal.name[:34]:<34} {beside} {_state(signal):<10} {signal.threshold_source}"


def _state(signal: Signal) -> str:
    return "persists" if signal.persistent else "fired" if signal.fired else "–" if signal.value is None else "calm"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _ages(parts: list[Any]) -> str:
    return ", ".join(f"{age:.3g} days {labelled}/{count}" for age, count, labelled in parts)


def _day(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _bullets(texts: tuple[str, ...], width: int) -> list[str]:
    return [line for text in texts for line in _wrapped(text, width, "  - ")]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=" " * len(indent))


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
