"""Bodies: JSON read into a struct and written from one, and scores that can be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from monox_kit.serving.contract import Answer, Kind, Refused, Reply, Request

T = TypeVar("T")

Floats = npt.NDArray[np.floating]

_ENCODER = msgspec.json.Encoder()


# What the engine asks of every text, for the document alone: the refusal stays the engine's.
TEXT_SCHEMA = {"type": "string", "pattern": "\\S"}


class NotJson(Refused):
    """The body is no JSON at all, which some protocols tell apart from JSON of another form."""

    def __init__(self, message: str) -> None:
        super().__init__(Kind.INVALID, message)


class Score(msgspec.Struct):
    """A class with its score."""

    label: Annotated[str, Meta(description="Name of the class.")]
    score: Annotated[float, Meta(description="Its probability, or the logit where it was asked.")]


def read(request: Request, decoder: msgspec.json.Decoder[T], body: bytes | None = None) -> T:
    """The body as the decoder's struct.

    Args:
        request: whose body it is, and whose headers say how it is encoded.
        decoder: of the struct.
        body: the part of the body that is JSON; None where all of it is.

    Raises:
        Refused: it is compressed, no JSON or JSON of another form.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Refused(
            Kind.INVALID, "The body is compressed, which this server does not read. Send it plain."
        )
    try:
        return decoder.decode(request.body if body is None else body)
    except msgspec.ValidationError as error:
        raise Refused(Kind.INVALID, f"The body has another form: {error}.") from error
    except msgspec.DecodeError as error:
        raise NotJson(f"The body is no JSON: {error}.") from error
    except UnicodeDecodeError as error:
        raise NotJson("The body is no JSON: it is not encoded in UTF-8.") from error
    except RecursionError as error:
        raise NotJson("The body is no JSON that is read: it is nested too deeply.") from error


def reply(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply in JSON, of structs, lists and plain values."""
    return Reply(
        body=_ENCODER.encode(value),
        status=status,
        headers={"content-type": "application/json", **(headers or {})},
    )


def written(value: object) -> bytes:
    """A value as JSON."""
    return _ENCODER.encode(value)


def require_finite(scores: Floats) -> None:
    """Raise the refusal of scores that JSON has no numbers for.

    Raises:
        Refused: one is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise Refused(Kind.BACKEND, "The model gave a score that is not finite.")


def ranked(names: Sequence[str], scores: Floats, most: int | None = None) -> list[list[Score]]:
    """The classes of each row with their scores, largest first.

    Args:
        names: C of them.
        scores: [N, C].
        most: classes of a row; None gives all.
    """
    # A stable sort: of equal scores the first class leads, as it does in decisions.
    order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
    values = np.take_along_axis(scores, order, axis=1).tolist()
    return [
        [Score(names[column], score) for column, score in zip(columns, row, strict=True)]
        for columns, row in zip(order.tolist(), values, strict=True)
    ]


def milliseconds(answer: Answer) -> Mapping[str, str]:
    """Where the time of an answer went, as text-embeddings-inference's headers tell it."""
    timings = answer.timings
    total_s = timings.tokenizing_s + timings.queue_s + timings.run_s
    return {
        "x-total-time": _ms(total_s),
        "x-tokenization-time": _ms(timings.tokenizing_s),
        "x-queue-time": _ms(timings.queue_s),
        "x-inference-time": _ms(timings.run_s),
    }


def _ms(seconds: float) -> str:
    return str(round(1000 * seconds))
