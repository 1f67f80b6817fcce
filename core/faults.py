"""What is done about errors that nobody foresaw: a log line, and Sentry where there is a DSN."""

import time
from contextvars import ContextVar
from typing import Any

import structlog

from core.config import VERSION, Settings, SettingsError
from core.logs import place

log = structlog.get_logger()

# A loop that fails every second is one event a minute; a hundred places failing, a hundred.
SAME_AGAIN_AFTER = 60.0  # seconds
MOST_PLACES = 100
FLUSH_SECONDS = 2.0
FRAME = ("filename", "function", "module", "lineno", "context_line", "in_app")
EVENT = ("event_id", "timestamp", "level", "platform", "release", "environment", "sdk", "tags")


class Faults:
    """Reports an error by its kind and place; its text may quote what people wrote."""

    def __init__(self, settings: Settings) -> None:
        dsn = settings.sentry_dsn
        self._sentry = _client(dsn.get_secret_value(), settings.environment) if dsn else None
        self._sent_at: dict[tuple[str, str | None], float] = {}

    def report(self, event: str, error: BaseException, **fields: str | None) -> None:
        """Log `event` with `fields`, which the log's allow-list must know."""
        kind, at = type(error).__name__, place(error)
        log.error(event, error=kind, at=at, **fields)
        if self._sentry and self._is_news(kind, at):
            self._send(error, {"event": event} | {k: v for k, v in fields.items() if v})

    def close(self) -> None:
        if self._sentry:
            self._sentry.close(timeout=FLUSH_SECONDS)

    def _is_news(self, kind: str, at: str | None) -> bool:
        now = time.monotonic()
        if now - self._sent_at.get((kind, at), -SAME_AGAIN_AFTER) < SAME_AGAIN_AFTER:
            return False
        if len(self._sent_at) >= MOST_PLACES:
            self._sent_at.clear()
        self._sent_at[kind, at] = now
        return True

    def _send(self, error: BaseException, tags: dict[str, str]) -> None:
        from sentry_sdk.utils import event_from_exception

        assert self._sentry is not None
        event, hint = event_from_exception(error, client_options=self._sentry.options)
        event["tags"] = tags
        self._sentry.capture_event(event, hint)


def _client(dsn: str, environment: str) -> Any:
    """A client of our own: without the SDK's integrations nothing is captured unasked."""
    import sentry_sdk
    from sentry_sdk.utils import BadDsn

    try:
        return sentry_sdk.Client(
            dsn,
            release=f"memory-layer@{VERSION}",
            environment=environment,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            max_request_body_size="never",
            send_default_pii=False,
            before_send=_scrub,
        )
    except BadDsn as error:
        raise SettingsError("SENTRY_DSN is not the DSN of a Sentry project") from error


def _scrub(event: Any, _: Any) -> Any:
    """Keep what is named here, and of exceptions no text."""
    kept = {name: event[name] for name in EVENT if name in event}
    values = event.get("exception", {}).get("values", [])
    return kept | {"exception": {"values": [_exception(value) for value in values]}}


def _exception(value: dict[str, Any]) -> dict[str, Any]:
    frames = (value.get("stacktrace") or {}).get("frames", [])
    kept = [{name: frame.get(name) for name in FRAME} for frame in frames]
    return {
        "type": value.get("type"),
        "module": value.get("module"),
        "stacktrace": {"frames": kept},
    }


# Background loops are started deep inside; the context of the task that starts them knows.
_current: ContextVar[Faults] = ContextVar("faults")


def use(faults: Faults) -> None:
    """Let `report` of this context, and of the tasks that it starts, go to `faults`."""
    _current.set(faults)


def report(event: str, error: BaseException, **fields: str | None) -> None:
    _current.get().report(event, error, **fields)
