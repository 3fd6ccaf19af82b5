"""What a trained model was made from, for its record and its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from monox_kit.foreign import markdown_code, markdown_text
from monox_kit.results import Result
from monox_kit.store import LogitStore
from monox_kit.training.config import DEV


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOrigin:
    """A logit store, and the teacher that wrote it.

    Attributes:
        digest: the store's.
        num_rows: rows in it.
        teacher: the name that the teacher went by; None where the store does not tell.
        teacher_digest: of its weights or graph; None where its answers were imported.
        precision: that it labelled in; None where its answers were imported.
        corpus_digest: of the text.
    """

    digest: str
    num_rows: int
    teacher: str | None
    teacher_digest: str | None
    precision: str | None
    corpus_digest: str | None

    @classmethod
    def of(cls, store: LogitStore) -> Self:
        """What a store tells of itself."""
        names = ("teacher", "teacher_digest", "precision", "corpus_digest")
        told = {name: store.manifest.fingerprint.get(name) for name in names}
        texts = {name: None if value is None else str(value) for name, value in told.items()}
        return cls(digest=store.digest, num_rows=len(store), **texts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin(Result):
    """Data and teachers of a training run.

    Attributes:
        labelled_name: files of the gold-labelled text; empty where none was learned from.
        num_labelled: rows in them.
        labelled_digest: of the documents.
        dev_names: files by dev set, of those that are known by one name.
        dev_digests: of the documents of each dev set.
        select_on: the sets that chose the weights.
        dev_language: of `dev`; None where its rows do not name it.
        labelled_languages: of the gold-labelled text that `dev` was compared with; may be none.
        stores: what was learned from besides.
    """

    labelled_name: str
    num_labelled: int
    labelled_digest: str
    dev_names: Mapping[str, str]
    dev_digests: Mapping[str, str]
    select_on: Sequence[str]
    dev_language: str | None
    labelled_languages: Sequence[str]
    stores: Sequence[StoreOrigin]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The origin that `to_json` gave."""
        stores = [StoreOrigin(**store) for store in values["stores"]]
        return cls(**{**values, "stores": stores})

    def card_lines(self) -> Iterator[str]:
        """The lines of the model card's sections on data and teacher."""
        yield "## Data"
        yield ""
        if self.labelled_name:
            yield (
                f"- gold-labelled: {markdown_code(self.labelled_name)}, "
                f"{self.num_labelled:,} rows, digest `{self.labelled_digest}`"
            )
        for store in self.stores:
            yield (
                f"- logit store: {store.num_rows:,} rows, digest `{store.digest}`, of the corpus "
                f"with digest {markdown_code(store.corpus_digest)}"
            )
        for name, digest in self.dev_digests.items():
            chose = ", chose the weights" if name in self.select_on else ", reported alone"
            known = f" {markdown_code(self.dev_names[name])}," if name in self.dev_names else ""
            yield f"- dev set {markdown_text(name)}:{known} digest `{digest}`{chose}"
        yield ""
        yield "## Teacher"
        yield ""
        if not self.stores:
            yield "None: this model learned from gold labels alone."
        for store in self.stores:
            if store.precision is None and store.teacher_digest is None:
                yield f"- {markdown_code(store.teacher)}, whose answers were imported from files"
                continue
            yield (
                f"- {markdown_code(store.teacher)}, digest {markdown_code(store.teacher_digest)}, "
                f"labelled in {markdown_text(store.precision)}"
            )

    def selection_line(self) -> str:
        """How the weights were chosen, and what is known of the language that chose them."""
        if tuple(self.select_on) == (DEV,):
            if self.dev_language is None:
                return "The dev set chose the weights. Its rows do not name their language."
            chose = f"The dev set, in {markdown_text(self.dev_language)}, chose the weights."
            if self.labelled_languages:  # a dev set in none of them is refused
                languages = markdown_text(", ".join(self.labelled_languages))
                return f"{chose} The gold-labelled text is in {languages}."
            return f"{chose} It was not checked that the training text is in that language."
        return (
            f"The dev sets {markdown_text(', '.join(self.select_on))} chose the weights, as "
            "--select-on asked: results in these languages are not zero-shot."
        )
