"""Refusals as the API gives them: a status, one sentence, and the facts a client needs to mend its request."""

from __future__ import annotations

from typing import Any

CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "METHOD_NOT_ALLOWED",
    408: "DEADLINE_EXCEEDED",
    413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "INVALID_PARAMETER_VALUE",
    431: "REQUEST_TOO_LARGE",
    429: "RESOURCE_EXHAUSTED",
    503: "TEMPORARILY_UNAVAILABLE",
}


class Problem(Exception):
    """A request that is not answered as asked.

    Args:
        status: The HTTP status.
        message: What is wrong, in one sentence.
        headers: Further response headers, such as Retry-After.
        details: column, row (counted from 0), value, rule, example: whatever applies.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}
        self.details = {name: value for name, value in details.items() if value is not None}

    def body(self) -> dict[str, Any]:
        """One shape for every protocol: MLflow's clients read error_code and message, v2's read error."""
        code = CODES.get(self.status, "ERROR")
        return {"error": self.message, "error_code": code, "message": self.message, **self.details}


def shown(value: object) -> str:
    """A value as an error names it: its repr, cut short."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value[:80]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
