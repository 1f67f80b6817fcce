"""One user's vectors: exact while they are few, 8-bit codes and rescoring when they are many."""

from collections.abc import Iterator

import faiss
import numpy as np
import simsimd

from storage.columns import Columns

# A scan of more floats than this leaves the processor's cache; codes take a quarter of the room.
MOST_FLAT = 10_000
# With codes, so many of the latest stay floats; an add of one need not move all.
MOST_RECENT = 4_096
# So many of the nearest by their codes are compared anew by their 16-bit originals. The true ten
# nearest are among them (benchmarks/index.py measures it).
RESCORED = 100
_LARGEST_CODE = 127
# Components this much larger than those seen when the scale was chosen still have codes.
_HEADROOM = 1.25
_PIECE = 4_096


class VectorIndex:
    """Vectors are numbered as they come: the coded ones, then the recent ones, which are floats."""

    def __init__(self, dimensions: int) -> None:
        self._recent = _Floats(dimensions)
        self._coded: _Coded | None = None

    def __len__(self) -> int:
        return len(self._recent) + (len(self._coded) if self._coded else 0)

    @property
    def nbytes(self) -> int:
        return self._recent.nbytes + (self._coded.nbytes if self._coded else 0)

    def add(self, vectors: np.ndarray) -> None:
        """Take (n, dimensions) unit vectors of float32."""
        self._recent.extend(vectors)
        if len(self._recent) > (MOST_RECENT if self._coded else MOST_FLAT):
            floats = self._recent.view()
            self._coded = self._coded or _Coded(floats)
            self._coded.extend(floats)
            self._recent = _Floats(vectors.shape[1])

    def cosines(self, vector: np.ndarray) -> np.ndarray:
        """Return the cosine of each vector with this one, in the order of their numbers."""
        query = np.ascontiguousarray(vector, np.float32)
        recent = self._recent.cosines(query)
        return np.concatenate([self._coded.cosines(query), recent]) if self._coded else recent

    def keep(self, kept: np.ndarray) -> None:
        """Drop all but these, shape (len,) of bool, and number them anew in the same order."""
        coded = len(self._coded) if self._coded else 0
        if self._coded:
            self._coded.keep(kept[:coded])
        floats = self._recent.view()[kept[coded:]]
        self._recent = _Floats(self._recent.index.d)
        self._recent.extend(floats)


class _Floats:
    """Exact, and as large as they are. No index grows by itself: it would take twice the room."""

    def __init__(self, dimensions: int) -> None:
        self.index = faiss.IndexFlatIP(dimensions)
        self._room = 0

    def __len__(self) -> int:
        return int(self.index.ntotal)

    @property
    def nbytes(self) -> int:
        return 4 * self._room * self.index.d

    def cosines(self, query: np.ndarray) -> np.ndarray:
        # What `search` does, without its heap: to sort all takes four times as long.
        found = np.empty(len(self), np.float32)
        if len(self):
            faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]
                *(faiss.swig_ptr(found), faiss.swig_ptr(query), self.index.get_xb()),
                *(self.index.d, len(self)),
            )
        return found

    def extend(self, vectors: np.ndarray) -> None:
        rows = len(self) + len(vectors)
        if rows > self._room:
            before, self.index = self.index, faiss.IndexFlatIP(self.index.d)
            self._room = rows + rows // 16
            _reserve(self.index, self._room)
            if before.ntotal:
                self.index.add(_stored(before))
        self.index.add(vectors)

    def view(self) -> np.ndarray:
        """Return the vectors, shape (n, dimensions); it holds until the next `extend`."""
        if not len(self):
            return np.empty((0, self.index.d), np.float32)
        return _stored(self.index)


class _Coded:
    """Components scaled to whole numbers of 8 bits, which are compared as such."""

    def __init__(self, sample: np.ndarray) -> None:
        """Choose the scale by a sample of the vectors."""
        self._scale = _LARGEST_CODE / max(float(np.abs(sample).max()) * _HEADROOM, 1e-6)
        dimensions = sample.shape[1]
        self._vectors = Columns(code=("i1", dimensions), original=("f2", dimensions))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def nbytes(self) -> int:
        return self._vectors.nbytes

    def cosines(self, query: np.ndarray) -> np.ndarray:
        scale = _LARGEST_CODE / max(float(np.abs(query).max()), 1e-6)
        code = np.rint(query * scale).astype(np.int8)
        # FAISS has no such scan without a heap of all that it finds.
        sums = simsimd.cdist(code[np.newaxis], self._vectors["code"], "inner")
        found: np.ndarray = np.asarray(sums)[0].astype(np.float32)
        found /= self._scale * scale
        best = np.flatnonzero(found >= np.partition(found, -RESCORED)[-RESCORED])
        found[best] = self._vectors["original"][best].astype(np.float32) @ query
        return found

    def extend(self, vectors: np.ndarray) -> None:
        """Code in pieces: no step takes memory for all, or keeps the interpreter for long."""
        self._vectors.reserve(len(self) + len(vectors))
        for piece in _pieces(vectors):
            numbers = np.rint(piece * self._scale)
            codes = np.clip(numbers, -_LARGEST_CODE, _LARGEST_CODE)
            self._vectors.append(len(piece), code=codes, original=piece)

    def keep(self, kept: np.ndarray) -> None:
        self._vectors.keep(kept)


def _reserve(index: faiss.IndexFlatCodes, rows: int) -> None:
    """Take the room for so many rows at once; the index stays empty."""
    index.codes.resize(rows * index.code_size)
    index.reset()


def _stored(index: faiss.IndexFlatIP) -> np.ndarray:
    """Return a view of what the index holds, shape (n, dimensions)."""
    held: np.ndarray = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return held.reshape(-1, index.d)


def _pieces(vectors: np.ndarray) -> Iterator[np.ndarray]:
    return (vectors[n : n + _PIECE] for n in range(0, len(vectors), _PIECE))
