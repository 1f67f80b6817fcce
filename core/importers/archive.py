"""The parts of an uploaded file: itself, or what a zip holds, read forward and within bounds."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stream_unzip import TruncatedDataError, UnzipError, stream_unzip

from core.importers.byte_stream import ByteStream
from core.importers.turns import Damaged

CHUNK = 65_536
MOST_ENTRIES = 100_000
# Chats shrink to a tenth, seldom to a thirtieth. Less is forgiven until it could do harm.
MOST_RATIO = 100
FREE_BYTES = 64 * 1024 * 1024
# Grok's export holds the account's sign-in and payment data too, which is none of our business.
PRIVATE = (b"auth", b"billing")


class Counted:
    """A file that counts what has been read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes_read = 0

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._file.read(CHUNK):
            self.bytes_read += len(chunk)
            yield chunk


def is_zip(head: bytes) -> bool:
    return head.startswith(b"PK")


def parts(file: Counted, path: Path) -> Iterator[ByteStream]:
    """Yield a stream of each file in it, to be read before the next; no name is used as a path.

    Raises Damaged where a zip ends too early, or is more than it seems.
    """
    with path.open("rb") as peeked:
        zipped = is_zip(peeked.read(4))
    if not zipped:
        yield ByteStream(file.chunks())
        return
    inflated = _Inflated(file)
    try:
        for n, (name, _, chunks) in enumerate(stream_unzip(file.chunks(), chunk_size=CHUNK)):
            if n >= MOST_ENTRIES:
                raise Damaged("too_many_files")
            part = ByteStream(inflated.within_bounds(chunks))
            if not any(word in name.lower() for word in PRIVATE):
                yield part
            if part.damage:
                return  # Its reader has told of it; nothing can be read behind it.
            part.rest()
            if part.damage:
                raise Damaged(part.damage)
    except UnzipError as error:
        raise Damaged(_reason(error)) from error


class _Inflated:
    """Counts what all files of a zip have become, against what was read of it."""

    def __init__(self, file: Counted) -> None:
        self._file = file
        self._bytes = 0

    def within_bounds(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            for chunk in chunks:
                self._bytes += len(chunk)
                if self._bytes > max(FREE_BYTES, MOST_RATIO * self._file.bytes_read):
                    raise Damaged("zip_bomb")
                yield chunk
        except UnzipError as error:
            raise Damaged(_reason(error)) from error


def _reason(error: UnzipError) -> str:
    return "cut" if isinstance(error, TruncatedDataError) else "damaged_zip"
