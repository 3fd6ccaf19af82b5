"""A shuffled order of a store's rows that is computed position by position and never held."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from monox_kit.data import Int64s
from monox_kit.errors import StoreError

# 4 rounds are enough against an observer of few positions, 6 against one of many (Patarin,
# "Security of Random Feistel Schemes with 5 or More Rounds", 2004); a few rows want some more.
_ROUNDS = 8
_BLOCK_ROWS = 4096  # rows computed at once while iterating
_MOST_ROWS = 2**62


class RowPermutation:
    """A permutation of the rows 0 to N - 1, a pure function of seed and epoch.

    Any position is computed by itself, in memory that does not depend on N: a reader that resumes,
    or one of many that share an epoch, begins where it likes. `permutation[k]` is the row that
    stands at position k. The values are fixed: every later version gives the same.

    Source: the generalized Feistel cipher on Z_a x Z_a with a = ceil(sqrt(N)), applied again while
    it leads outside of N ("cycle walking"): Black and Rogaway, "Ciphers with Arbitrary Finite
    Domains", CT-RSA 2002, methods 3 and 2. Its round function is the finalizer of SplitMix64
    (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) under keys
    from BLAKE2b. It shuffles; it is no encryption: rows, pairs and triples fall evenly on their
    positions, while even and odd permutations are not equally frequent for some N.
    """

    def __init__(self, num_rows: int, seed: int, epoch: int) -> None:
        """Computes the keys and nothing else.

        Args:
            num_rows: N, from 1 to 2**62.
            seed: any whole number.
            epoch: any whole number; every epoch has an order of its own.

        Raises:
            StoreError: there is no such number of rows.
        """
        if not 1 <= num_rows <= _MOST_ROWS:
            raise StoreError(
                f"row permutation: expected from 1 to {_MOST_ROWS} rows, found {num_rows}. "
                "Give the number of rows of a store."
            )
        self._num_rows = num_rows
        self._side = math.isqrt(num_rows - 1) + 1
        keys = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8 * _ROUNDS).digest()
        self._keys = np.frombuffer(keys, "<u8").astype(np.uint64)

    def __len__(self) -> int:
        """N."""
        return self._num_rows

    @overload
    def __getitem__(self, position: int | np.integer[Any]) -> int: ...
    @overload
    def __getitem__(self, position: npt.NDArray[np.integer[Any]]) -> Int64s: ...
    def __getitem__(
        self, position: int | np.integer[Any] | npt.NDArray[np.integer[Any]]
    ) -> int | Int64s:
        """The row at a position, or [n] int64 rows at [n] positions from 0 to N - 1.

        Raises:
            StoreError: a position is outside, or no whole number.
        """
        positions = np.asarray(position)
        if not np.issubdtype(positions.dtype, np.integer):
            raise StoreError(
                f"row permutation: expected whole-numbered positions, found {positions.dtype}. "
                "Give an integer or an array of them."
            )
        outside = (positions < 0) | (positions >= self._num_rows)
        if outside.any():
            raise StoreError(
                f"row permutation: expected positions from 0 to {self._num_rows - 1}, found "
                f"{positions[outside].flat[0]}. Begin the next epoch."
            )
        rows = self._walked(positions.astype(np.uint64).ravel())
        return int(rows[0]) if positions.ndim == 0 else rows.reshape(positions.shape)

    def __iter__(self) -> Iterator[int]:
        """All rows in the permutation's order."""
        for start in range(0, self._num_rows, _BLOCK_ROWS):
            yield from self[np.arange(start, min(start + _BLOCK_ROWS, self._num_rows))].tolist()

    def _walked(self, values: npt.NDArray[np.uint64]) -> Int64s:
        """The cipher, again for whatever it leads outside: a**2 - N < 2 * sqrt(N) values can be."""
        values = self._enciphered(values)
        outside = np.flatnonzero(values >= self._num_rows)
        while len(outside):
            values[outside] = self._enciphered(values[outside])
            outside = outside[values[outside] >= self._num_rows]
        return values.astype(np.int64)

    def _enciphered(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """A permutation of the numbers below a**2."""
        side = np.uint64(self._side)
        right, left = np.divmod(values, side)
        for key in self._keys:
            summed = left + mixed(right ^ key) % side
            # Both are below `side`: a second division would cost as much as all the rest.
            left, right = right, np.where(summed < side, summed, summed - side)
        return np.asarray(left + right * side)


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Every value's 64 bits, each spread over all of them: the finalizer of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
