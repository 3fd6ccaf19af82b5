"""What a trained model was made from, for its record and its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from monox_kit.foreign import markdown_code, markdown_text
from monox_kit.models.record import SEEN_LANGUAGES
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
        languages: of the rows, as far as the store tells them.
    """

    digest: str
    num_rows: int
    teacher: str | None
    teacher_digest: str | None
    precision: str | None
    corpus_digest: str | None
    languages: Sequence[str] = ()

    @classmethod
    def of(cls, store: LogitStore) -> Self:
        """What a store tells of itself."""
        names = ("teacher", "teacher_digest", "precision", "corpus_digest")
        told = {name: store.manifest.fingerprint.get(name) for name in names}
        texts = {name: None if value is None else str(value) for name, value in told.items()}
        languages = sorted(tag for tag in store.all_languages() if tag is not None)
        return cls(digest=store.digest, num_rows=len(store), languages=languages, **texts)


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslationOrigin:
    """Translations that rows are read as.

    Attributes:
        name: their files.
        digest: of the translations and their languages.
        share: of the visits of a row with translations, those that read one.
        languages: of those that belong to a row, with their number.
    """

    name: str
    digest: str
    share: float
    languages: Mapping[str, int]


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
        translations: what rows were read as; None without any.
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
    translations: TranslationOrigin | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The origin that `to_json` gave, in this version or an earlier one."""
        stores = [StoreOrigin(**store) for store in values["stores"]]
        told = values.get("translations")
        translations = None if told is None else TranslationOrigin(**told)
        known = {key: value for key, value in values.items() if key != SEEN_LANGUAGES}
        return cls(**{**known, "stores": stores, "translations": translations})

    def to_json(self) -> dict[str, Any]:
        """The origin as plain JSON values, with the languages that it tells of."""
        return {**Result.to_json(self), SEEN_LANGUAGES: self.seen_languages}

    @property
    def seen_languages(self) -> list[str]:
        """Languages whose results are not zero-shot: of text that was learned from, or that chose.

        Sorted. That of `dev` is none of them; where `dev` does not tell its language, stores of a
        single one say nothing either.
        """
        read = {tag for store in self.stores for tag in store.languages}
        read |= set(self.labelled_languages)
        if self.dev_language is None and len(read) == 1:
            read = set()
        if self.translations is not None:
            read |= set(self.translations.languages)
        read |= {name for name in self.select_on if name != DEV}
        return sorted(read - {self.dev_language})

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
        if self.translations is not None:
            told = self.translations
            languages = ", ".join(
                f"{markdown_text(tag)} {n:,}" for tag, n in told.languages.items()
            )
            yield (
                f"- translations: {markdown_code(told.name)}, digest `{told.digest}`; of the rows "
                f"that have one, {100 * told.share:g} % of the visits read it ({languages})"
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

    def seen_lines(self) -> Iterator[str]:
        """Which results are not zero-shot; nothing where none is known not to be."""
        if self.seen_languages:
            yield ""
            yield (
                f"Text in {markdown_text(', '.join(self.seen_languages))} was learned from, or "
                "chose the weights: results in these languages are not zero-shot."
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
            spoken = sorted({tag for store in self.stores for tag in store.languages})
            if spoken:
                return f"{chose} The stores hold text in {markdown_text(', '.join(spoken))}."
            return f"{chose} It was not checked that the training text is in that language."
        return (
            f"The dev sets {markdown_text(', '.join(self.select_on))} chose the weights, as "
            "--select-on asked: results in these languages are not zero-shot."
        )
