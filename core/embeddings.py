"""From text to vectors: the interface of every embedder, how text is cut, and which one is used."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from core.config import Settings, SettingsError

Vectors = np.ndarray[Any, np.dtype[np.float32]]

# No chunk is longer, however few tokens it has; longer texts are embedded by their beginning.
CHUNK_CHARACTERS = 2_000
OPENAI_API = "https://api.openai.com/v1"


class EmbedderUnavailable(Exception):
    """The embedder cannot answer now; `retry_after` is in seconds, where the provider named it."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TextRefused(Exception):
    """The provider refuses these very texts; trying again is useless, the others are welcome."""

    def __init__(self, positions: Iterable[int]) -> None:
        """Take their places in the sequence that was given to `embed`."""
        self.positions = tuple(positions)
        super().__init__(f"The embedding provider refuses {len(self.positions)} of the texts")


@dataclass(frozen=True, slots=True)
class Span:
    """Python character offsets into the text; `stop` is not included."""

    start: int
    stop: int


class Embedder(Protocol):
    @property
    def name(self) -> str:
        """Provider and model, stored beside each vector; vectors of two names never mix."""

    @property
    def dimensions(self) -> int: ...

    def split(self, text: str, most: int) -> list[Span]:
        """Cut into at most `most` chunks, in order, that hold all text but white space.

        May take milliseconds: call it in a thread.
        """

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        """Return (n, dimensions) unit vectors; what is urgent never waits for what is not.

        Raises EmbedderUnavailable and TextRefused.
        """

    async def aclose(self) -> None: ...


def make_embedder(settings: Settings) -> Embedder | None:
    """Return what EMBEDDER names, or None for `none`: search is by words only then.

    Raises SettingsError. The providers' modules are imported here, since most are never used.
    """
    provider, _, model = settings.embedder.partition(":")
    if settings.embedder == "none":
        return None
    if settings.embedder == "local":
        from core.embed_local import LocalEmbedder

        return LocalEmbedder(settings.model_dir)
    if provider != "openai" or not model:
        raise SettingsError(f"EMBEDDER is {settings.embedder!r}: use local, openai:MODEL or none")
    from core.embed_openai import OpenAIEmbedder

    url = settings.embedder_base_url or settings.openai_base_url
    # OpenAI's key is for nobody else to see.
    secret = settings.embedder_api_key or (
        None if settings.embedder_base_url else settings.openai_api_key
    )
    key = secret.get_secret_value() if secret else ""
    if not key and url.rstrip("/") == OPENAI_API:
        raise SettingsError(f"EMBEDDER is {settings.embedder} but OPENAI_API_KEY is not set")
    return OpenAIEmbedder(model, key, url, settings.embedding_batch)


def unit_length(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled


# Where a chunk may end, best first: after a paragraph, a sentence, a line, a word.
_ENDS = (
    re.compile(r"\n\s*\n"),
    re.compile(r"[.!?\u2026]['\")\]\u00bb\u2019\u201d]*\s+|[\u3002\uff01\uff1f]"),
    re.compile(r"\n"),
    re.compile(r"\s+"),
)
_VISIBLE = re.compile(r"\S")


def split_text(text: str, most: int, fitting: Callable[[str], int]) -> list[Span]:
    """Cut text into chunks; `fitting` says how many characters of a window one chunk can hold.

    Only as much text is looked at as the chunks need, and no two chunks overlap.
    """
    spans: list[Span] = []
    visible = _VISIBLE.search(text)
    while visible and len(spans) < most:
        # Hand the interpreter over between windows, or the event loop waits 5 ms for each turn.
        time.sleep(0)
        start = visible.start()
        window = text[start : start + CHUNK_CHARACTERS]
        length = max(1, fitting(window))
        if start + length < len(text):
            length = _best_end(window, length)
        spans.append(Span(start, start + len(window[:length].rstrip())))
        visible = _VISIBLE.search(text, start + length)
    return spans


def _best_end(window: str, length: int) -> int:
    """Move a cut back to the last good place in the last third before it."""
    earliest = length * 2 // 3
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(window, earliest, length)]
        if ends:
            return ends[-1]
    return length
