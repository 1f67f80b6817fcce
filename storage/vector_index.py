"""One user's vectors: exact while they are few, 8-bit codes and rescoring when they are many."""

from collections.abc import Iterator

import faiss
import numpy as np
import simsimd

from storage.columns import Columns

# A scan of more floats than this leaves the processor's cache; codes take a quarter of the room.
MOST_FLAT = 10_000
# With codes, so many of the latest stay floats; an add of one need not move all.
MOST_RECENT = 1_024
# So many of the nearest by their codes are compared anew by their 16-bit originals. The true ten
# nearest are among them (benchmarks/index.py measures it).
RESCORED = 100
_LARGEST_CODE = 127
_PIECE = 4_096


class VectorIndex:
    """Vectors are numbered as they come: the coded ones, then the recent ones, which are floats."""

    def __init__(self, dimensions: int) -> None:
        self._coded = _Coded(dimensions)
        self._recent = Columns(vector=("f4", dimensions))

    def __len__(self) -> int:
        return len(self._coded) + len(self._recent)

    @property
    def nbytes(self) -> int:
        return self._coded.nbytes + self._recent.nbytes

    def add(self, vectors: np.ndarray) -> None:
        """Take (n, dimensions) unit vectors of float32."""
        self._recent.append(len(vectors), vector=vectors)
        if len(self._recent) > (MOST_RECENT if len(self._coded) else MOST_FLAT):
            self._coded.extend(self._recent["vector"])
            self._recent = Columns(vector=("f4", vectors.shape[1]))

    def cosines(self, vector: np.ndarray) -> np.ndarray:
        """Return the cosine of each vector with this one, in the order of their numbers."""
        query = np.ascontiguousarray(vector, np.float32)
        recent = exact_cosines(self._recent["vector"], query)
        return np.concatenate([self._coded.cosines(query), recent]) if len(self._coded) else recent

    def keep(self, kept: np.ndarray) -> None:
        """Drop all but these, shape (len,) of bool, and number them anew in the same order."""
        coded = len(self._coded)
        self._coded.keep(kept[:coded])
        self._recent.keep(kept[coded:])


def exact_cosines(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return the inner product of each row, shape (n, dimensions), with this one; all float32."""
    found = np.empty(len(vectors), np.float32)
    if len(vectors):
        # As a search of FAISS' flat index, without its heap: to sort all takes four times as long.
        faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
            *map(faiss.swig_ptr, (found, query, vectors)), vectors.shape[1], len(vectors)
        )
    return found


class _Coded:
    """Components scaled to whole numbers of 8 bits, as large as each vector allows."""

    def __init__(self, dimensions: int) -> None:
        self._vectors = Columns(code=("i1", dimensions), step="f4", original=("f2", dimensions))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def nbytes(self) -> int:
        return self._vectors.nbytes

    def cosines(self, query: np.ndarray) -> np.ndarray:
        codes, steps = _coded(query[np.newaxis])
        # FAISS has no such scan without a heap of all that it finds.
        sums = simsimd.cdist(codes, self._vectors["code"], "inner")
        found: np.ndarray = np.asarray(sums)[0].astype(np.float32)
        found *= self._vectors["step"] * steps
        most = min(RESCORED, len(found))
        best = np.flatnonzero(found >= np.partition(found, -most)[-most])
        found[best] = self._vectors["original"][best].astype(np.float32) @ query
        return found

    def extend(self, vectors: np.ndarray) -> None:
        """Code in pieces: no step takes memory for all, or keeps the interpreter for long."""
        self._vectors.reserve(len(self) + len(vectors))
        for piece in _pieces(vectors):
            codes, steps = _coded(piece)
            self._vectors.append(len(piece), code=codes, step=steps, original=piece)

    def keep(self, kept: np.ndarray) -> None:
        self._vectors.keep(kept)


def _coded(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of each row, and the step of each, which is what a code of 1 stands for."""
    steps = np.maximum(np.abs(vectors).max(axis=1), np.float32(1e-6)) / _LARGEST_CODE
    return np.rint(vectors / steps[:, np.newaxis]).astype(np.int8), steps


def _pieces(vectors: np.ndarray) -> Iterator[np.ndarray]:
    return (vectors[n : n + _PIECE] for n in range(0, len(vectors), _PIECE))
