"""A version's card as Markdown, from what is known of it. Pure: no registry, no clock."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from perennial.definition import ModelDefinition, duration_text
from perennial.state.registry import Reign, Version

DESCRIPTION_LENGTH = 4900  # MLflow's database takes 5,000 characters
_MOST_COLUMNS, _MOST_IMPORTANT = 60, 10
_ESCAPED = str.maketrans(
    {sign: f"\\{sign}" for sign in "\\`*_[]|#~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}
)


@dataclass(frozen=True)
class Facts:
    """All that a card is made of.

    Attributes:
        definition: As it is when the card is written.
        history: Every change of champion of the model, oldest first.
        gate: The gate's report as JSON; None where the version has none.
        evaluation: `evaluation.json` of the version; None of a version that was trained before there was one.
        base: Of a recalibrated version, the evaluation of the model that it maps.
        metrics: The run's metrics by name.
        written_at: When the card is written.
    """

    definition: ModelDefinition
    version: Version
    history: Sequence[Reign]
    gate: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    base: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    written_at: datetime | None = None


def render_card(facts: Facts) -> str:
    """The whole card; a part of which nothing is known says so."""
    return "\n\n".join(_parts(facts)) + "\n"


def render_description(facts: Facts, whole: str) -> str:
    """As much of the card as MLflow takes for a version's description: whole parts, and where the rest is."""
    parts = list(_parts(facts))
    text = "\n\n".join(parts)
    rest = f"The whole card: `{whole}` among the artifacts of the version's run."
    while len(text) + len(rest) + 2 > DESCRIPTION_LENGTH and len(parts) > 1:
        parts.pop()
        text = "\n\n".join(parts)
    return f"{text[: DESCRIPTION_LENGTH - len(rest) - 2]}\n\n{rest}"


def _parts(facts: Facts) -> Iterator[str]:
    yield _head(facts)
    for title, lines in (
        ("What it is for", _purpose(facts)),
        ("In people's own words", [facts.definition.card.text] if facts.definition.card.text else []),
        ("How good it is", _quality(facts)),
        ("Weak segments", _weak(facts)),
        ("Limits", _limits(facts)),
        ("By slice", _slices(facts)),
        ("Calibration", _calibration(facts)),
        ("Data", _data(facts)),
        ("The gate", _gate(facts)),
        ("Who let it in", _approvals(facts)),
        ("What it goes by", _importance(facts)),
        ("Made of", _made_of(facts)),
    ):
        if lines:
            yield f"## {title}\n\n" + "\n".join(lines)
    if facts.written_at is not None:
        yield f"Written {_moment(facts.written_at)} by Perennial from what it recorded."


def _head(facts: Facts) -> str:
    version = facts.version
    told = f"# {facts.definition.name}, version {version.number}"
    reigns = [line for line in facts.history if line.version == version.number]
    if not reigns:
        return told + "\n\nIt has not been champion."
    last, live = reigns[-1], facts.history[-1]
    if live.version == version.number:
        return (
            told
            + f"\n\nChampion since {_moment(last.at)}, let in by {escape(last.by)}: {escape(last.reason.rstrip('.'))}."
        )
    return told + f"\n\nIt was champion from {_moment(last.at)} on; version {live.version} is since {_moment(live.at)}."


def _purpose(facts: Facts) -> list[str]:
    definition = facts.definition
    lines = [text for text in (escape(definition.description), definition.card.purpose) if text]
    target = f"It predicts `{_code(definition.data.target)}` ({definition.task})"
    if names := _json(facts.version.tag("classes")):
        target += f": the probability of {escape(names[-1])} rather than {escape(names[0])}"
    delay = definition.data.label_delay
    lines.append(target + (f"; the truth is known {duration_text(delay)} later." if delay else "."))
    if definition.card.contact:
        lines.append(f"Ask {definition.card.contact}.")
    return [line for text in lines for line in (text, "")][:-1]


def _quality(facts: Facts) -> list[str]:
    gate, found = facts.gate or {}, facts.evaluation or {}
    others = {name: table for name, table in gate.get("metrics", {}).items() if name != "challenger"}
    own = found.get("metrics") or {
        name: {"value": value} for name, value in gate.get("metrics", {}).get("challenger", {}).items()
    }
    if not own:
        return ["Nothing was recorded of its quality."]
    rows = found.get("rows", gate.get("rows"))
    lines = [
        f"On {_count(rows)} rows that it had not seen when it was judged"
        + (f", in {_count(gate['blocks'])} blocks of time" if gate.get("blocks") else "")
        + (f"; intervals of {100 * found['confidence']:g} %." if found else "."),
        "",
        _row(["metric", "value", "interval", *(f"{name} beside it" for name in others)]),
        _row(["---", *["--:"] * (2 + len(others))]),
    ]
    for name, item in own.items():
        shown = f"**{escape(name)}**" if name == gate.get("metric") else escape(name)
        beside = [number(table.get(name)) for table in others.values()]
        lines.append(_row([shown, number(item.get("value")), _interval(item), *beside]))
    if facts.version.tag("kind") != "recalibration":
        lines += ["", "What is registered has learned from these rows too, after it was judged."]
    return lines


def _slices(facts: Facts) -> list[str]:
    slices = (facts.evaluation or {}).get("slices") or []
    if not slices:
        named = ", ".join(facts.definition.gate.slices)
        return [f"No slice of {escape(named)} had enough rows."] if named and facts.evaluation else []
    lines = [_row(["slice", "rows", slices[0]["metric"], "interval"]), _row(["---", "--:", "--:", "--:"])]
    for item in slices:
        name = f"{escape(item['column'])} = {escape(item['value_of'])}"
        lines.append(_row([name, _count(item["rows"]), number(item["value"]), _interval(item)]))
    return lines


def _calibration(facts: Facts) -> list[str]:
    bins = (facts.evaluation or {}).get("calibration") or []
    lines = []
    if found := _json(facts.version.tag("recalibration")):
        base = facts.version.tag("base_version")
        lines += [f"Its score goes through a map ({escape(found.get('method', ''))}) of version {escape(base)}.", ""]
    if bins:
        outside = [item for item in bins if not _inside(item)]
        where = "in none" if not outside else f"in {len(outside)}"
        lines += [f"What was said lies outside of the interval of what came {where} of {len(bins)} bins.", ""]
        lines += [_row(["said", "came", "interval", "rows"]), _row(["--:"] * 4)]
        lines += [
            _row([number(item["said"]), number(item["came"]), _interval(item), _count(item["rows"])]) for item in bins
        ]
    return lines


def _inside(item: Mapping[str, Any]) -> bool:
    known = all(item[name] is not None for name in ("low", "high", "said"))
    return not known or bool(item["low"] <= item["said"] <= item["high"])


def _weak(facts: Facts) -> list[str]:
    found, of = (facts.evaluation or {}).get("segments"), ""
    if (not found or not found["looked_at"]) and facts.base:
        found, of = facts.base.get("segments"), f" (of version {facts.version.tag('base_version')}, before its map)"
    if not found or not found["looked_at"]:
        return ["Nobody has looked for them: too few rows, or a version of before there were cards."]
    what = "segments of one or two columns" if found.get("columns") == 2 else "segments of single columns"
    if not found["found"]:
        return [f"None of {found['looked_at']} {what} is surely worse than the rest{of}."]
    lines = [
        f"{found['of']} of {found['looked_at']} {what} have surely more loss than the rest{of}; "
        "that may lie in the rows, and not in the model.",
        "",
        _row(["where", "rows", escape(found["metric"]), "elsewhere", "more by"]),
        _row(["---", *["--:"] * 4]),
    ]
    for item in found["found"]:
        more = f"{number(item['lift_low'])} to {number(item['lift_high'])}"
        shown = [escape(item["where"]), _count(item["rows"]), number(item["loss"]), number(item["elsewhere"]), more]
        lines.append(_row(shown))
    return lines


def _limits(facts: Facts) -> list[str]:
    definition, version = facts.definition, facts.version
    lines = [definition.card.limits, ""] if definition.card.limits else []
    if version.tag("trained_from"):
        span = f"{_day(version.tag('trained_from'))} to {_day(version.tag('trained_until'))}"
        lines.append(f"- It has seen rows from {span}: what is other than these it may not know.")
    for metric, limit in definition.gate.limits.items():
        ends = {"at least": limit.min, "at most": limit.max}
        bounds = " and ".join(f"{word} {value:g}" for word, value in ends.items() if value is not None)
        lines.append(f"- {escape(metric)} must be {bounds} (`gate.limits`).")
    for check in (facts.gate or {}).get("checks", ()):
        if check["name"] in ("latency", "size") and check.get("value") is not None:
            lines.append(f"- {escape(check['name'])}: {number(check['value'])} {check.get('unit', '')}.")
        elif check.get("passed") is False:
            lines.append(f"- It failed {escape(check['name'])}: {escape(check.get('detail', ''))}")
    policy = definition.monitoring
    lines.append(
        f"- Checks look at windows of {duration_text(policy.window)}"
        + (f" by the schedule `{_code(policy.schedule)}`." if policy.schedule else "; no schedule runs them.")
    )
    return lines


def _data(facts: Facts) -> list[str]:
    definition, version = facts.definition, facts.version
    kinds = ("parquet", "csv", "delta", "sql", "loader")
    source = next(kind for kind in kinds if getattr(definition.data.source, kind))
    shown = [f"Rows come from a {source} source."]
    if rows := version.tag("trained_rows"):
        shown = [f"{_count(rows)} rows from {version.tag('trained_from')} to {version.tag('trained_until')}, {source}."]
    lines = [*shown, ""]
    if version.tag("definition_hash") not in ("", definition.hash):
        lines += ["The definition has changed since: what stands here of it is of the newer one.", ""]
    lines += [_row(["", ""]), _row(["---", "---"])]
    for kind in ("numeric", "categorical", "text", "image", "boolean", "datetime"):
        if names := getattr(definition.features, kind):
            more = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
            lines.append(_row([f"{kind} features", escape(", ".join(names[:_MOST_COLUMNS])) + more]))
    ids = ", ".join(definition.data.id_columns)
    lines.append(_row(["id, time, target", escape(f"{ids}; {definition.data.time}; {definition.data.target}")]))
    facts_shown = {"data version": "data_version", "known at": "as_of", "definition": "definition_hash"}
    lines += [_row([name, escape(version.tag(tag))]) for name, tag in facts_shown.items() if version.tag(tag)]
    return lines


def _gate(facts: Facts) -> list[str]:
    gate = facts.gate
    if gate is None:
        return ["The run has no report of the gate."]
    lines = [f"**{escape(gate['verdict'])}** by {escape(gate['metric'])}.", ""]
    lines += [f"- {escape(reason)}" for reason in gate["reasons"]]
    later, reason = facts.version.tag("gate.verdict"), facts.version.tag("gate.reason")
    if later not in ("", gate["verdict"]):
        lines.append(f"- Later: {escape(later)}; {escape(reason)}")
    lines += ["", _row(["check", "result", "value", "limit", "interval"]), _row(["---", "---", "--:", "--:", "--:"])]
    results = {True: "passed", False: "**failed**", None: "unknown"}
    for check in gate["checks"]:
        limit = "" if check["limit"] is None else ("≥ " if check["bound"] == "min" else "≤ ") + number(check["limit"])
        result = results[check["passed"]] + ("" if check["blocking"] else " (told only)")
        interval = _interval(check.get("interval") or {})
        lines.append(_row([escape(check["name"]), result, number(check["value"]), limit, interval]))
    return lines


def _approvals(facts: Facts) -> list[str]:
    version = facts.version
    lines = [
        f"- {_moment(line.at)}: {escape(line.action)} by {escape(line.by)}: {escape(line.reason)}"
        + (f" (decision `{_code(line.decision_id)}`)" if line.decision_id else "")
        for line in facts.history
        if line.version == version.number
    ]
    if version.tag("approval") in ("pending", "refused", "expired"):
        told = f"- A person's approval: {version.tag('approval')}"
        lines.append(told + (f" by {escape(version.tag('approval.by'))}" if version.tag("approval.by") else ""))
    return lines or ["Nobody."]


def _importance(facts: Facts) -> list[str]:
    prefix = "importance/"
    known = {name.removeprefix(prefix): value for name, value in facts.metrics.items() if name.startswith(prefix)}
    top = sorted(known.items(), key=lambda item: -item[1])[:_MOST_IMPORTANT]
    if not top:
        return []
    lines = ["By how much the loss rises when a column is shuffled.", ""]
    return [*lines, *(f"- {escape(name)}: {number(value)}" for name, value in top)]


def _made_of(facts: Facts) -> list[str]:
    version = facts.version
    lines = [_row(["", ""]), _row(["---", "---"])]
    shown = {
        "estimator": facts.definition.training.estimator,
        "parameters": version.tag("parameters"),
        "code": version.tag("code_version"),
        "Python": version.tag("python"),
        "lock": version.tag("lock")[:16],
        "beside the lock": version.tag("lock_differences")[:300],
        "artifacts' digest": version.digest,
        "run": version.run_id,
        "beaten version": version.tag("beaten_version"),
    }
    return lines + [_row([name, escape(value)]) for name, value in shown.items() if value]


def escape(text: object) -> str:
    """Text of data or of people as Markdown shows it: no mark-up, no HTML, one line."""
    return str(text).translate(_ESCAPED)


def number(value: float | None) -> str:
    """Four significant digits, or a dash."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _interval(item: Mapping[str, Any]) -> str:
    low, high = item.get("low"), item.get("high")
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _count(value: object) -> str:
    return f"{int(str(value)):,}" if str(value).isdigit() else str(value)


def _code(text: object) -> str:
    return str(text).replace("`", "'").replace("\n", " ").replace("|", "/")


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _day(text: str) -> str:
    return text[:10]


def _json(text: str) -> Any:
    return json.loads(text) if text else None
