"""Reads a reply while its bytes pass: server-sent events, or one document."""

from collections.abc import Iterator

import orjson

from core.providers.format import Format, Said

MOST_PENDING = 1024 * 1024  # bytes of one event


class Reading:
    """`said.failed` where the reply breaks its own protocol; what was read until then stays."""

    def __init__(self, format: Format, *, stream: bool) -> None:
        self.said = Said()
        self._format = format
        self._stream = stream
        self._pending = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> str:
        """Return the text that the chunk adds."""
        if self.said.failed:
            return ""
        if not self._stream:
            self._pending += chunk
            return ""
        try:
            return "".join([self._read(data) for data in self._events(chunk)])
        except orjson.JSONDecodeError:
            self.said.failed = True
            return ""

    def end(self) -> str:
        """Return what only the end of a reply could tell."""
        if self._stream:
            return ""
        try:
            return self._format.read_whole(orjson.loads(self._pending), self.said)
        except orjson.JSONDecodeError:
            self.said.failed = True
            return ""

    def _read(self, data: bytes) -> str:
        if data == b"[DONE]":
            self.said.finished = True
            return ""
        return self._format.read_event(orjson.loads(data), self.said)

    def _events(self, chunk: bytes) -> Iterator[bytes]:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        self.said.failed = len(self._pending) > MOST_PENDING
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip())
            elif not line.strip() and self._data:
                data, self._data = b"\n".join(self._data), []
                yield data
