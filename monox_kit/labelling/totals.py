"""What a labelling run did, counted up as it goes, and the rates and the price that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monox_kit.models.scoring import Truncation


@dataclass(slots=True)
class Totals:
    """Running sums of one labelling run.

    Attributes:
        rows: labelled.
        tokens: real tokens that went through the teacher's graph.
        padded_tokens: the same with padding.
        repeated: rows that an equal text had settled.
        recomputed: rows that the guard computed again.
        recomputed_tokens: real tokens of those, as far as they went through the fp32 graph.
        recomputing_s: seconds in the fp32 graph.
        truncated: rows that the cut took tokens from.
        truncated_tokens: the tokens that they lost; see `Encoded.truncated`.
        document_tokens: tokens of all rows before the cut; equal ones count each.
        guard_learning_s: seconds before the first window, of the guard's calibration and audit.
        worker_s: from the first batch to the last commit, added up over all processes.
        seconds: the same on the clock of the run; on a cluster, with hiring its workers.
    """

    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    repeated: int = 0
    recomputed: int = 0
    recomputed_tokens: int = 0
    recomputing_s: float = 0.0
    truncated: int = 0
    truncated_tokens: int = 0
    document_tokens: int = 0
    guard_learning_s: float = 0.0
    worker_s: float = 0.0
    seconds: float = 0.0

    def add(self, other: Totals) -> None:
        """Count another run's sums in."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def truncation(self) -> Truncation:
        """What the cut took from the rows that were labelled."""
        lost = (self.truncated, self.truncated_tokens, self.document_tokens)
        return Truncation(self.rows, *lost)

    @property
    def padding(self) -> float:
        """Padding among the tokens of the teacher's graph."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0

    def rates(self) -> dict[str, float | None]:
        """Rows and real tokens per second, and the padding fraction; None with nothing done."""
        if not self.seconds:
            return {"rows_per_s": None, "tokens_per_s": None, "padding_fraction": None}
        return {
            "rows_per_s": round(self.rows / self.seconds, 2),
            "tokens_per_s": round(self.tokens / self.seconds, 1),
            "padding_fraction": round(self.padding, 4),
        }

    @property
    def reference_alone_s(self) -> float | None:
        """Seconds that the fp32 graph would have taken for all rows; None where it took none."""
        if not self.recomputed_tokens:
            return None
        return self.recomputing_s * self.tokens / self.recomputed_tokens

    def guard_price(self) -> dict[str, float | None]:
        """Seconds that the guard cost, and as a fraction of what labelling took without it."""
        spent = self.recomputing_s + self.guard_learning_s
        rest = self.worker_s - self.recomputing_s
        return {
            "recomputing_s": round(self.recomputing_s, 3),
            "learning_s": round(self.guard_learning_s, 3),
            "price": round(spent / rest, 4) if rest > 0 else None,
        }

    def to_json(self) -> dict[str, Any]:
        """What the store's completion record remembers: all of it of the last run alone."""
        return {
            "rows": self.rows,
            "labelled_s": round(self.seconds, 3),
            "worker_s": round(self.worker_s, 3),
            "num_tokens": self.tokens,
            "num_padded_tokens": self.padded_tokens,
            "num_repeated_rows": self.repeated,
            "num_truncated_rows": self.truncated,
            "num_truncated_tokens": self.truncated_tokens,
            "num_document_tokens": self.document_tokens,
            "num_recomputed_rows": self.recomputed,
            "num_recomputed_tokens": self.recomputed_tokens,
            **self.rates(),
            **self.guard_price(),
        }
