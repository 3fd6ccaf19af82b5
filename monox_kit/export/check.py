"""The texts that an exported graph is checked on."""

from __future__ import annotations

from collections.abc import Sequence

from monox_kit.data import Document
from monox_kit.export.sample_texts import SAMPLE_TEXTS


def check_documents(given: Sequence[Document], max_length: int) -> list[Document]:
    """The texts to check with: what the user gave, else the built-in ones at growing lengths."""
    if given:
        return list(given)
    texts = list(SAMPLE_TEXTS)
    joined = " ".join(SAMPLE_TEXTS)
    # About 4 characters a token: short to longer than the cut.
    texts += [joined[: 4 * length] for length in range(8, max_length + 8, 8)]
    return [Document(row=row, id=str(row), text=text) for row, text in enumerate(texts)]
