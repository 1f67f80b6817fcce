"""Bytes of a part of a file, read once and forward; damage ends them and is remembered."""

import codecs
from collections.abc import Iterator

from core.importers.turns import Damaged

# Of one conversation. It bounds what a hostile file can make us hold.
MOST_ITEM_BYTES = 64 * 1024 * 1024
# How many more brackets may be opened in it than closed, those in its texts included: a parser's
# work grows with the square of how deep it is.
MOST_OPEN = 20_000


class ByteStream:
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = bytearray()
        self._ended = False
        self.damage: str | None = None

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes, or what there is, and leave them."""
        while len(self._buffer) < size and not self._ended:
            self._fill()
        return bytes(self._buffer[:size])

    def read(self, size: int) -> bytes:
        if not self._buffer and not self._ended:
            self._fill()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def rest(self) -> None:
        """Pass over what has not been read."""
        self._buffer.clear()
        while not self._ended:
            self._fill()
            self._buffer.clear()

    def _fill(self) -> None:
        try:
            chunk = next(self._chunks, None)
        except Damaged as error:
            self.damage, chunk = error.reason, None
        if chunk is None:
            self._ended = True
        else:
            self._buffer += chunk


class Utf8:
    """A stream as well-formed UTF-8 without a byte order mark: what is broken becomes U+FFFD."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._first = True
        self.allow_an_item()

    def allow_an_item(self) -> None:
        self._allowed, self._open = MOST_ITEM_BYTES, 0

    def text(self, size: int) -> str:
        """Return some text, and none at the end. Raises Damaged where an item has no end."""
        while True:
            raw = self.stream.read(size)
            text = self._decoder.decode(raw, final=not raw)
            if self._first and text:
                text, self._first = text.removeprefix("\ufeff"), False
            if text or not raw:
                break
        self._allowed -= len(text)
        self._open += text.count("[") + text.count("{") - text.count("]") - text.count("}")
        if self._allowed < 0 or self._open > MOST_OPEN:
            raise Damaged("too_large")
        return text

    def read(self, size: int) -> bytes:
        """As `ijson` asks for it; it asks for nothing once, to know whether it gets bytes."""
        return self.text(size).encode() if size else b""

    def lines(self) -> Iterator[str]:
        """Yield lines with their ends; the last one may have none."""
        rest: list[str] = []
        while text := self.text(65_536):
            *whole, last = text.split("\n")
            for line in whole:
                self.allow_an_item()
                yield "".join((*rest, line, "\n"))
                rest = []
            rest.append(last)
        if "".join(rest):
            yield "".join(rest)
