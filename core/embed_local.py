"""all-MiniLM-L6-v2 in this process: no network and no key, and loaded only when first needed."""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from core import minilm
from core.embeddings import EmbedderUnavailable, Span, Vectors, split_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# 256 is what the model was trained for; two of them mark the beginning and the end.
MOST_TOKENS = 256
CHUNK_TOKENS = MOST_TOKENS - 2
BACKGROUND_NICENESS = 15
# A query of so many tokens keeps the loop for two or three milliseconds; another thread, with cold
# caches and two changes of hands, takes one and a half more.
AT_ONCE_TOKENS = 32
AT_ONCE_CHARACTERS = 400


class _Model(NamedTuple):
    tokenizer: "Tokenizer"
    session: Any  # onnxruntime.InferenceSession

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)

    def embed(self, tokens: list[int]) -> Vectors:
        """Return one row."""
        ids = np.array([tokens], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        (row,) = self.session.run(None, feed)
        return cast(Vectors, row)


class LocalEmbedder:
    name = minilm.NAME
    dimensions = minilm.DIMENSIONS

    def __init__(self, model_dir: Path) -> None:
        self._folder = model_dir / minilm.NAME
        self._loaded: _Model | None = None
        self._loading = threading.Lock()
        # A thread each, so that a query never stands behind the backlog.
        self._background = ThreadPoolExecutor(1, "embed-background", _yield_to_the_service)
        self._urgent = ThreadPoolExecutor(1, "embed-urgent")

    def split(self, text: str, most: int) -> list[Span]:
        tokenizer = self._model().tokenizer

        def fitting(window: str) -> int:
            offsets = tokenizer.encode(window, add_special_tokens=False).offsets
            return offsets[CHUNK_TOKENS][0] if len(offsets) > CHUNK_TOKENS else len(window)

        return split_text(text, most, fitting)

    async def embed(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        """One text at a time: 8-bit results depend on what else is in a batch, and stop quickly."""
        if urgent and len(texts) == 1 and (vectors := self._embed_at_once(texts[0])) is not None:
            return vectors
        loop, threads = asyncio.get_running_loop(), self._urgent if urgent else self._background
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = await loop.run_in_executor(threads, self._embed_one, text)
        return vectors

    async def aclose(self) -> None:
        for threads in (self._background, self._urgent):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)

    def _embed_at_once(self, text: str) -> Vectors | None:
        """Embed what is short, once the model is loaded; None otherwise."""
        if self._loaded is None or len(text) > AT_ONCE_CHARACTERS:
            return None
        tokens = self._loaded.tokens(text)
        return self._loaded.embed(tokens) if len(tokens) <= AT_ONCE_TOKENS else None

    def _embed_one(self, text: str) -> Vectors:
        model = self._model()
        return model.embed(model.tokens(text))

    def _model(self) -> _Model:
        with self._loading:
            if self._loaded is None:
                self._loaded = _load(self._folder)
            return self._loaded


def _load(folder: Path) -> _Model:
    import onnxruntime
    from tokenizers import Tokenizer

    for name in (minilm.MODEL_FILE, minilm.TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise EmbedderUnavailable(
                f"{folder / name} is missing: run python -m core.minilm {folder.parent}"
            )
    tokenizer = Tokenizer.from_file(str(folder / minilm.TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Both keep memory for every length of text ever seen.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(
        str(folder / minilm.MODEL_FILE),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=minilm.DISABLED_OPTIMIZERS,
    )
    return _Model(tokenizer, session)


def _yield_to_the_service() -> None:
    """Only Linux has a priority for each thread; elsewhere it is the process's."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)
