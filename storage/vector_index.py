"""One user's vectors: exact while they are few, 8-bit codes and rescoring when they are many."""

from collections.abc import Iterator

import faiss
import numpy as np

# A scan of more floats than this leaves the processor's cache; codes take a quarter of the room.
MOST_FLAT = 10_000
# With codes, so many of the latest stay floats; an add of one need not move all.
MOST_RECENT = 4_096
# So many of the nearest by their codes are compared anew by their 16-bit originals. The true ten
# nearest are among them (benchmarks/index.py measures it).
RESCORED = 200
# A component of 0 has the code 128.
_LARGEST_CODE, _ZERO = 127, 128
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

    def search(self, vector: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cosines and numbers of the nearest, best first, shape (≤ most,)."""
        query = vector.reshape(1, -1).astype(np.float32)
        recent = _nearest(self._recent.index, query, most)
        if self._coded is None:
            return recent
        coded = self._coded.search(query, most)
        cosines = np.concatenate([coded[0], recent[0]])
        numbers = np.concatenate([coded[1], recent[1] + len(self._coded)])
        order = np.argsort(-cosines, kind="stable")[:most]
        return cosines[order], numbers[order]

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
    """Components scaled to whole numbers of 8 bits, which FAISS compares as such."""

    def __init__(self, sample: np.ndarray) -> None:
        """Choose the scale by a sample of the vectors."""
        self._scale = _LARGEST_CODE / max(float(np.abs(sample).max()) * _HEADROOM, 1e-6)
        self._index = self._empty(sample.shape[1])
        self._originals = np.empty((0, sample.shape[1]), np.float16)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def nbytes(self) -> int:
        return 3 * self._originals.size

    def _empty(self, dimensions: int) -> faiss.IndexScalarQuantizer:
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        return faiss.IndexScalarQuantizer(dimensions, kind, faiss.METRIC_INNER_PRODUCT)

    def search(self, query: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
        scale = _LARGEST_CODE / max(float(np.abs(query).max()), 1e-6)
        cosines, numbers = _nearest(self._index, np.rint(query * scale), max(most, RESCORED))
        cosines /= self._scale * scale
        best = numbers[:RESCORED]
        cosines[:RESCORED] = self._originals[best].astype(np.float32) @ query[0]
        return cosines, numbers

    def extend(self, vectors: np.ndarray) -> None:
        rows = len(self) + len(vectors)
        if rows > len(self._originals):
            self._move(np.ones(len(self), dtype=bool), rows + rows // 8)
        originals, codes = self._originals[len(self) : rows], self._grow(rows)[len(self) :]
        for part in _pieces(len(vectors)):
            originals[part] = vectors[part]
            numbers = np.rint(vectors[part] * self._scale)
            codes[part] = np.clip(numbers, -_LARGEST_CODE, _LARGEST_CODE) + _ZERO
        self._index.ntotal = rows

    def keep(self, kept: np.ndarray) -> None:
        self._move(kept, int(kept.sum()))

    def _move(self, kept: np.ndarray, room: int) -> None:
        """Move what is kept to where so many have room."""
        numbers, before, codes = np.flatnonzero(kept), self._originals, self._grow(len(self))
        old = self._index  # which holds the memory of `codes`
        self._index = self._empty(before.shape[1])
        self._originals = np.empty((room, before.shape[1]), np.float16)
        _reserve(self._index, room)
        moved = self._grow(len(numbers))
        for part in _pieces(len(numbers)):
            self._originals[part] = before[numbers[part]]
            moved[part] = codes[numbers[part]]
        self._index.ntotal = len(numbers)
        del old

    def _grow(self, rows: int) -> np.ndarray:
        """Return the codes of so many rows, which have room, to be written to."""
        self._index.codes.resize(rows * self._index.code_size)
        held: np.ndarray = faiss.rev_swig_ptr(self._index.codes.data(), rows * self._index.d)
        return held.reshape(rows, self._index.d)


def _reserve(index: faiss.IndexFlatCodes, rows: int) -> None:
    """Take the room for so many rows at once; the index stays empty."""
    index.codes.resize(rows * index.code_size)
    index.reset()


def _stored(index: faiss.IndexFlatIP) -> np.ndarray:
    """Return a view of what the index holds, shape (n, dimensions)."""
    held: np.ndarray = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return held.reshape(-1, index.d)


def _pieces(rows: int) -> Iterator[slice]:
    """Cut the work: no step of it takes memory for all, or keeps the interpreter for long."""
    return (slice(n, min(n + _PIECE, rows)) for n in range(0, rows, _PIECE))


def _nearest(index: faiss.Index, query: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    wanted = min(most, index.ntotal)
    if not wanted:
        return np.empty(0, np.float32), np.empty(0, np.int64)
    cosines, numbers = index.search(query, wanted)
    return cosines[0], numbers[0]
