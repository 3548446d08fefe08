"""A person's word on a challenger that the gate let past: pending, approved or refused. No judging of models.

A version waits with the tag `approval=pending`; it keeps what the gate said. Approving promotes it, once, and only
while the champion that it was judged against still reigns.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from perennial.errors import ConflictError, NotFoundError
from perennial.state.registry import Registry, Reign, Version


def pending(registry: Registry, model: str) -> list[Version]:
    """The versions that wait for a person, oldest first."""
    return [version for version in registry.versions(model) if version.tag("approval") == "pending"]


def ask(registry: Registry, version: Version) -> None:
    """Let the version wait for a person; one that was answered stays so."""
    if not version.tag("approval"):
        registry.set_tags(version, {"approval": "pending"})


def where_to_answer(version: Version, expires: timedelta) -> str:
    """For people: that the version waits, until when, and where to answer for it."""
    model, until = version.model, version.created_at + expires
    return (
        f"Version {version.number} of {model} waits for a person until {until:%Y-%m-%d %H:%M} UTC. Answer by a run of "
        f"the deployment approve/{model} in Prefect, or by `perennial approve {model} --reason WHY` or "
        f"`perennial refuse {model} --reason WHY`."
    )


def approve(
    registry: Registry, model: str, number: int | None, *, by: str, reason: str, at: datetime, expires: timedelta
) -> Reign:
    """Promote the waiting version: the newest one, or the one named.

    Raises:
        NotFoundError: None waits, or that one does not.
        ConflictError: It waited longer than `expires`, or the champion has changed since it was judged, or somebody
            else has let it in.
    """
    version = _waiting(registry, model, number)
    remedy = f"Judge a new one: `perennial retrain {model}`"
    if at - version.created_at > expires:
        registry.set_tags(version, {"approval": "expired"})
        raise ConflictError(f"version {version.number} of {model} waited longer than {expires}", remedy)
    champion, beaten = registry.champion(model), version.tag("beaten_version")
    if champion is not None and str(champion.number) not in (beaten, str(version.number)):
        raise ConflictError(
            f"version {version.number} of {model} was judged against {beaten or 'none'}, "
            f"champion is {champion.number} now",
            remedy,
        )
    reign = registry.promote(
        version, action="approve", at=at, recorded_at=at, by=by, reason=reason,
        decision_id=version.tag("decision_id") or None,
    )  # fmt: skip
    registry.set_tags(version, {"approval": "approved", "approval.by": reign.by, "approval.reason": reign.reason})
    if (reign.by, reign.recorded_at) != (by, at):  # two at the same moment: what stands is the other's word
        raise ConflictError(
            f"version {version.number} of {model} is champion already, let in by {reign.by}: {reign.reason}",
            "Nothing is to do",
        )
    return reign


def refuse(registry: Registry, model: str, number: int | None, *, by: str, reason: str) -> Version:
    """Write down that a person refused the waiting version; the champion stays.

    Raises:
        NotFoundError: None waits, or that one does not.
    """
    version = _waiting(registry, model, number)
    registry.set_tags(version, {"approval": "refused", "approval.by": by, "approval.reason": reason})
    return version


def _waiting(registry: Registry, model: str, number: int | None) -> Version:
    waiting = pending(registry, model)
    chosen = [version for version in waiting if number in (None, version.number)]
    if not chosen:
        known = ", ".join(str(version.number) for version in waiting) or "none"
        asked = f"version {number}" if number else "no version"
        raise NotFoundError(
            f"{asked} of {model} waits for approval (waiting: {known})", f"See `perennial status {model}`"
        )
    return chosen[-1]
