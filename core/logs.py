"""Logs: one JSON object a line on stdout, made of named fields and never of what people wrote."""

import hashlib
import logging
import secrets
import sys
import time
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TextIO
from uuid import UUID

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from core.config import ROOT

# A field that is not named here does not leave the process, whatever somebody passes to a logger.
FIELDS = frozenset(
    {
        *("event", "level", "timestamp"),
        *("id", "method", "route", "status", "code", "ms", "user"),
        *("error", "at", "reason", "work", "logger"),
        *("seconds", "texts", "saves", "chunks", "wanted_chunks", "memory_id"),
        # Names of ours and of the operator's, never of a memory's.
        *("job", "provider"),
    }
)
LONGEST_VALUE = 200  # characters

log = structlog.get_logger()


def configure(level: str, stream: TextIO = sys.stdout) -> None:
    """Begin to log: JSON, or at a terminal lines for people."""
    at_terminal = stream.isatty()
    renderer = (
        structlog.dev.ConsoleRenderer(colors=False)
        if at_terminal
        else structlog.processors.JSONRenderer(serializer=orjson.dumps)
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            keep_known_fields,
            stamp,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream)
        if at_terminal
        else structlog.BytesLoggerFactory(stream.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[LibraryHandler()], force=True)


def keep_known_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: _plain(value) for name, value in event.items() if name in FIELDS}


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value[:LONGEST_VALUE]
    return value if value is None or isinstance(value, int | float) else type(value).__name__


def stamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    now = time.time()
    event["timestamp"] = f"{_second(int(now))}.{int(now * 1000) % 1000:03}Z"
    return event


@lru_cache(2)
def _second(epoch: int) -> str:
    """Writing the date out costs more than the rest of a line."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(epoch))


class LibraryHandler(logging.Handler):
    """Says that a library has logged, and where; its text may quote what people wrote."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        log.log(
            record.levelno,
            "library",
            logger=record.name,
            at=f"{record.module}.py:{record.lineno}",
            error=type(error).__name__ if error else None,
        )


def place(error: BaseException) -> str | None:
    """Where in our code it was raised, as `save_queue.py:120`."""
    found = None
    trace: TracebackType | None = error.__traceback__
    while trace:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts:
            found = f"{path.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


class Pseudonyms:
    """Names in logs for users: the same for the same key, and no way back without it."""

    def __init__(self, key: str | None) -> None:
        self._key = hashlib.sha256((key or secrets.token_hex(32)).encode()).digest()

    def of(self, user_id: UUID) -> str:
        return hashlib.blake2b(user_id.bytes, key=self._key, digest_size=6).hexdigest()
