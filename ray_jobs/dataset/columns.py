"""Long lists kept as columns of bytes and numbers: an image then costs tens of bytes, where objects take thousands.

An item is made when somebody asks for it and forgotten afterwards.
"""

import copy
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item", covariant=True)

_ENCODING = ("utf-8", "surrogateescape")  # names of files need not be UTF-8


class Columns(Sequence[Item]):
    """Rows of a table as items. A slice shares the table."""

    def __init__(self, length: int) -> None:
        self._rows = range(length)

    @abstractmethod
    def _item(self, row: int) -> Item:
        """Make the item of a row of the table."""

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item]:
        return map(self._item, self._rows)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> Item | Self:
        if isinstance(at, slice):
            part = copy.copy(self)
            part._rows = self._rows[at]
            return part
        return self._item(self._rows[at])


class Texts(Columns[str]):
    """File names, or other short texts, one behind the other: ``encoded`` (uint8), which end at ``ends`` (int64)."""

    def __init__(self, encoded: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        check_ends(ends, len(encoded))
        super().__init__(len(ends))
        self.encoded, self.ends = encoded, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """The same texts, packed."""
        encoded, ends = bytearray(), array("q")
        for text in texts:
            encoded += text.encode(*_ENCODING)
            ends.append(len(encoded))
        return cls(np.frombuffer(encoded, np.uint8), np.frombuffer(ends, np.int64))

    def _item(self, row: int) -> str:
        start = self.ends[row - 1] if row else 0
        return self.encoded[start : self.ends[row]].tobytes().decode(*_ENCODING)


def check_ends(ends: NDArray[np.int64], length: int) -> None:
    """Raise ``ValueError`` unless ``ends`` cut ``length`` rows into parts, one behind the other."""
    if ends.ndim != 1 or (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != length:
        raise ValueError("columns do not fit each other")
