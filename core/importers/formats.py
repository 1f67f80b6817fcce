"""Every format that can be imported, and which one a file is: told by what is in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from core.importers import (
    archive,
    chatgpt,
    claude,
    gemini,
    gemini_html,
    grok,
    memories,
    perplexity,
)
from core.importers.archive import Counted
from core.importers.byte_stream import ByteStream
from core.importers.json_stream import HEAD_BYTES, keys_of
from core.importers.turns import Damaged, Unit, Unusable

Read = Callable[[ByteStream, set[str]], Iterator[Unit]]


class Format(NamedTuple):
    name: str
    recognises: Callable[[set[str]], bool]
    read: Read


# In this order: the narrow ones first.
JSON_FORMATS = (
    Format("chatgpt", chatgpt.recognises, chatgpt.read),
    Format("claude", claude.recognises, claude.read),
    Format("grok", grok.recognises, grok.read),
    Format("perplexity", perplexity.recognises, perplexity.read),
    Format("gemini", gemini.recognises, gemini.read),
    Format("jsonl", memories.recognises, memories.read),
)
EXPECTED = "; ".join(
    module.EXPECTED for module in (chatgpt, claude, gemini, grok, perplexity, memories)
)
MOST_SHOWN_KEYS = 12


class Export:
    """An uploaded file as it is read: `formats` and `seen` say what it turned out to hold."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = Counted(file)
        self._path = path
        self.formats: dict[str, None] = {}
        self.seen: list[str] = []

    @property
    def bytes_read(self) -> int:
        return self._file.bytes_read

    def units(self) -> Iterator[Unit]:
        """Yield turns and what is none, always the same and in the same order."""
        try:
            for part in archive.parts(self._file, self._path):
                yield from self._units_of(part)
        except Damaged as error:
            yield Unusable(error.reason, failed=True)

    def _units_of(self, part: ByteStream) -> Iterator[Unit]:
        head = part.peek(HEAD_BYTES)
        keys = keys_of(head) if head.lstrip()[:1] in (b"[", b"{") or head[:3] == BOM else []
        name, read = self._recognised(head, set(keys))
        if read is None:
            if len(self.seen) < MOST_SHOWN_KEYS:
                self.seen.append(_described(head, keys))
            if part.damage:
                yield Unusable(part.damage, failed=True)
            return
        self.formats[name] = None
        try:
            yield from read(part, set(keys))
        except Damaged as error:
            yield Unusable(error.reason, failed=True)

    def _recognised(self, head: bytes, keys: set[str]) -> tuple[str, Read | None]:
        for known in JSON_FORMATS:
            if keys and known.recognises(keys):
                return known.name, known.read
        if gemini_html.recognises(head):
            return "gemini", gemini_html.read
        return "", None

    def not_recognised(self) -> str:
        found = "; ".join(dict.fromkeys(self.seen)) or "nothing"
        return f"This is no export that can be read. Expected: {EXPECTED}. Found: {found}."


BOM = b"\xef\xbb\xbf"


def _described(head: bytes, keys: list[str]) -> str:
    """Say in a few words what a file seems to be; keys are shown, and nothing of the content."""
    if keys:
        shown = ", ".join(key.removeprefix("item.")[:60] for key in keys[:MOST_SHOWN_KEYS])
        kind = "a list of objects" if keys[0].startswith("item.") else "an object"
        return f"JSON, {kind} with the keys {shown}"
    if archive.is_zip(head):
        return "an archive within the archive, which is not opened: import it by itself"
    if not head.strip():
        return "an empty file"
    if head.startswith(b"age-encryption.org/"):
        return "an encrypted export: decrypt it first, with `python main.py decrypt` or age"
    if head.lstrip()[:1] == b"<":
        return "HTML, but not of Gemini's activity"
    return "a file that is neither JSON nor HTML"
