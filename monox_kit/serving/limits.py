"""What a question may have: rows, characters and tokens, and texts that say something."""

from __future__ import annotations

import numpy as np

from monox_kit.errors import MonoxError
from monox_kit.models.predict import Model
from monox_kit.models.tokenizer import Encoded
from monox_kit.serving.config import ServeConfig
from monox_kit.serving.contract import Kind, Question, Refused

# A language tag of all its parts (BCP 47, section 4.4.1) and more; what a tag's parts are looked up
# in takes the square of their number.
_MOST_TAG_CHARACTERS = 64


def require_fits(question: Question, model: Model, config: ServeConfig) -> int:
    """How many characters a question has, if it is one and within the limits.

    Raises:
        Refused: it is not.
    """
    rows = question.rows
    if not rows:
        raise Refused(Kind.EMPTY, "The request has no text. Give one.")
    if len(rows) > config.max_rows:
        raise Refused(
            Kind.TOO_MANY_ROWS,
            f"The request has {len(rows)} texts, and at most {config.max_rows} are taken. "
            "Split it.",
        )
    if question.language is not None and len(question.language) > _MOST_TAG_CHARACTERS:
        raise Refused(
            Kind.INVALID,
            f"The language has {len(question.language)} characters, and a tag such as de-AT at "
            f"most {_MOST_TAG_CHARACTERS}.",
        )
    is_pair = {not isinstance(row, str) for row in rows}
    if len(is_pair) > 1:
        raise Refused(Kind.INVALID, "Single texts and pairs are mixed. Send them one by one.")
    try:
        model.loaded.folder.require_pairs(is_pair == {True}, "texts")
    except MonoxError:
        wanted = "single texts" if is_pair == {True} else "pairs of texts"
        raise Refused(Kind.INVALID, f"The model takes {wanted}.") from None
    total = 0
    for number, row in enumerate(rows):
        parts = (row,) if isinstance(row, str) else row
        if not all(part.strip() for part in parts):
            raise Refused(Kind.EMPTY, f"Text {number} is empty. Leave it out.")
        characters = sum(map(len, parts))
        if characters > config.max_characters:
            raise Refused(
                Kind.TOO_MANY_CHARACTERS,
                f"Text {number} has {characters} characters, and at most {config.max_characters} "
                "are taken. Shorten it.",
            )
        total += characters
    return total


def require_length(
    question: Question, encoded: Encoded, max_length: int, config: ServeConfig
) -> None:
    """Check how many tokens a question has.

    Args:
        question: what is asked.
        encoded: its rows, cut.
        max_length: tokens of a row, which the model takes.
        config: of the server.

    Raises:
        Refused: a row is too long and must not be cut, or all of them are too many.
    """
    truncates = config.truncate if question.truncate is None else question.truncate
    if not truncates and encoded.truncated.any():
        number = int(np.flatnonzero(encoded.truncated)[0])
        tokens = int(encoded.lengths[number] + encoded.truncated[number])
        raise Refused(
            Kind.TOO_MANY_TOKENS,
            f"Text {number} has {tokens} tokens, and the model takes {max_length}. Shorten it, or "
            "let it be truncated.",
        )
    tokens = int(encoded.lengths.sum())
    if tokens > config.max_tokens:
        raise Refused(
            Kind.TOO_MANY_TOKENS,
            f"The request has {tokens} tokens, and at most {config.max_tokens} are taken. "
            "Split it.",
        )
