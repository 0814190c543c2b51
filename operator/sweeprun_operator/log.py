"""Log lines, as JSON or for people. Objects are never logged, only their names: specs may hold secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from .settings import LogFormat


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(log_format: LogFormat) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if log_format is LogFormat.JSON:
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # kopf tells of every watch at INFO, and prints whole objects below that.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    # It warns that signals are not its own, which is meant so: kopf runs in a thread of ours.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
