"""How the serving processes write their log: one line of JSON each, on stderr. Nothing about what is worth a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from perennial.redaction import redact


def log_as_json(level: str) -> None:
    """Log lines of JSON on stderr, each with its facts; other libraries' warnings too."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers[:] = [handler]
    logger = logging.getLogger("perennial.serving")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)


class JsonLines(logging.Formatter):
    """A log record and its facts as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": moment, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str))
