"""A random sample of a corpus in one pass, in memory of the sample's size."""

from __future__ import annotations

import random

from monox_kit.data import Document

_SEED = 1


class Sample:
    """Keeps at most so many of the documents that go by, each equally likely.

    The same documents in the same order give the same sample.

    Source: J. S. Vitter, "Random Sampling with a Reservoir" (1985), algorithm R.
    """

    def __init__(self, most: int) -> None:
        """Args: the most documents to keep."""
        self._most = most
        self._seen = 0
        self._kept: list[Document] = []
        self._random = random.Random(_SEED)

    def add(self, document: Document) -> None:
        """Let a document go by."""
        self._seen += 1
        if len(self._kept) < self._most:
            self._kept.append(document)
        elif self._most and (place := int(self._random.random() * self._seen)) < self._most:
            self._kept[place] = document

    def documents(self) -> tuple[Document, ...]:
        """The sample in random order: any first part of it is a random sample too."""
        kept = list(self._kept)
        random.Random(_SEED).shuffle(kept)
        return tuple(kept)
