"""Texts that differ from each other, chosen without a model: by the characters in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monox_kit.data import Int64s

Vectors = npt.NDArray[np.float32]

# Numbers of a text's vector; at 256 two texts of 400 characters share few of them by chance.
_SIZE = 256
# Characters of a text that are looked at: more would say the same.
_MOST_CHARS = 4096
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


def text_vectors(texts: Sequence[str]) -> Vectors:
    """[n, 256] unit vectors of n texts: square roots of how often each run of three characters is.

    Runs are hashed into the 256 places. It knows no language and no words, so that it serves texts
    without spaces as well.
    """
    vectors = np.zeros((len(texts), _SIZE), np.float32)
    for at, text in enumerate(texts):
        codes = np.frombuffer(f"  {text[:_MOST_CHARS].lower()} ".encode("utf-32-le"), "<u4")
        runs = np.lib.stride_tricks.sliding_window_view(codes.astype(np.uint64), 3) * _FACTORS
        places = (np.bitwise_xor.reduce(runs, axis=1) >> np.uint64(56)).astype(np.int64)
        vectors[at] = np.sqrt(np.bincount(places, minlength=_SIZE))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def farthest_first(vectors: Vectors, count: int) -> Int64s:
    """[count] places of vectors, each the farthest from all that were chosen before.

    The first is place 0; of equally far ones the first counts.

    Source: Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985); for
    annotation: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
    Approach" (2018).
    """
    chosen = np.zeros(count, np.int64)
    nearest = np.full(len(vectors), -np.inf, np.float32)  # largest cosine to a chosen one
    for number in range(1, count):
        np.maximum(nearest, vectors @ vectors[chosen[number - 1]], out=nearest)
        nearest[chosen[number - 1]] = np.inf
        chosen[number] = int(np.argmin(nearest))
    return chosen
