"""How answers in files become a logit store, and what an import reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Gt, Lt, MinLen

from monox_kit.config import Config, Needs, Rule
from monox_kit.corpora.config import Column, CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.results import Result

# What a file's answers are; each has a column's setting of its name, `KIND_column`.
AnswerKind: TypeAlias = Literal["label", "probabilities", "logits", "logprobs", "votes"]
ANSWER_KINDS: tuple[AnswerKind, ...] = ("label", "probabilities", "logits", "logprobs", "votes")

LABEL_SMOOTHING = 0.1  # Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportConfig(Config):
    """How answers in files become a logit store.

    Attributes:
        rows: files of texts with a teacher's answers, in the order of the store's rows.
        labels: file labels.json with the names of the classes, in the order of the logits.
        origin: who or what gave the answers, such as "gpt-x, prompt 7".
        label_column: column of hard labels: a name, or a list of names where classes do not exclude
            each other.
        probabilities_column: column of probabilities: an object of all class names, or a list in
            the order of `labels`.
        logits_column: column of logits, in the same forms. They are stored as they are.
        logprobs_column: column of the log-probabilities of some classes: an object, or a list of
            objects with token and logprob as language models' services give it.
        votes_column: column of several answers: a list of class names, or an object of counts.
        gold_column: column that holds the gold label or labels [default: none are read].
        smoothing: share of the probability of a hard label that is spread over all classes
            [default: 0.1].
        missing_mass: probability that the classes which `logprobs_column` does not list share
            [default: what the listed ones leave, a class less than the least of them].
        on_unknown_label: whether a row whose answer is missing, cannot be read or names no class is
            an error, or is skipped, counted and listed in the report.
        on_duplicate_id: whether a row with the id of an earlier row is an error, is skipped in the
            same way, or is a row like others (keep).
        report: file of JSON lines to write, one for each row that was skipped; neither a file that
            is read nor in the store.
        shard_rows: rows of a shard, which is the unit of commit and of resuming.
        dtype: type of the stored logits.
        staging: folder for shards on their way to a URL [default: one in the cache].
    """

    RULES: ClassVar[tuple[Rule, ...]] = (
        Needs(("smoothing",), "label_column", "COLUMN"),
        Needs(("missing_mass",), "logprobs_column", "COLUMN"),
    )

    rows: CorpusConfig
    labels: Path
    origin: Annotated[str, MinLen(1)]
    label_column: Column | None = None
    probabilities_column: Column | None = None
    logits_column: Column | None = None
    logprobs_column: Column | None = None
    votes_column: Column | None = None
    gold_column: Column | None = None
    smoothing: Annotated[float, Gt(0), Lt(1)] | None = None
    missing_mass: Annotated[float, Gt(0), Lt(1)] | None = None
    on_unknown_label: Literal["error", "skip"] = "error"
    on_duplicate_id: Literal["error", "skip", "keep"] = "error"
    report: Path | None = None
    shard_rows: Annotated[int, Ge(1)] = 16_384
    dtype: Literal["float32", "float16"] = "float32"
    staging: str | None = None

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        given = [kind for kind in ANSWER_KINDS if getattr(self, f"{kind}_column") is not None]
        if len(given) != 1:
            names = ", ".join(f"`{kind}_column`" for kind in ANSWER_KINDS)
            found = " and ".join(f"`{kind}_column`" for kind in given) or "none"
            raise ConfigError(
                f"the column of answers: expected one of {names}, found {found}. Name the column "
                "that holds what the teacher said."
            )
        if self.report is not None and "skip" not in (self.on_unknown_label, self.on_duplicate_id):
            raise ConfigError(
                f"`report` {self.report}: it lists rows that are skipped, and none is. Give "
                "`on_unknown_label` skip or `on_duplicate_id` skip, or leave `report` out."
            )
        if not self.origin.strip():
            raise ConfigError(
                "`origin`: expected a text, found white space alone. Say who gave the answers."
            )

    @property
    def kind(self) -> AnswerKind:
        """What the answers are."""
        return next(kind for kind in ANSWER_KINDS if getattr(self, f"{kind}_column") is not None)

    @property
    def answer_setting(self) -> str:
        """The setting that names the column of answers."""
        return f"{self.kind}_column"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSummary(Result):
    """What an import did.

    Attributes:
        store: the store's folder or URL.
        origin: who gave the answers.
        answers: what they were.
        num_rows: rows of the store.
        num_shards: its shards.
        num_resumed_rows: rows that earlier runs had imported.
        num_labelled: rows with a gold label.
        labels: rows by the class that the answers decide for.
        num_skipped: rows of the files that are not in the store, by what is wrong with them.
        num_votes_left_out: votes for no class, in rows that other votes decided.
        report: the file that lists the skipped rows; None without one.
        store_digest: the store's digest.
    """

    store: Path | str
    origin: str
    answers: AnswerKind
    num_rows: int
    num_shards: int
    num_resumed_rows: int
    num_labelled: int
    labels: Mapping[str, int]
    num_skipped: Mapping[str, int]
    num_votes_left_out: int
    report: str | None
    store_digest: str

    @property
    def reused(self) -> bool:
        """Whether earlier runs had finished the store."""
        return self.num_resumed_rows == self.num_rows
