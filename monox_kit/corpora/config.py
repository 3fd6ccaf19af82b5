"""Which input files are read and how, as every command takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from annotated_types import MinLen

from monox_kit.config import Config
from monox_kit.corpora.detection import known_encoding
from monox_kit.corpora.formats import FormatName
from monox_kit.corpora.languages import told_languages
from monox_kit.corpora.rows import Columns, Dialect, Quoting
from monox_kit.data import LabelSet
from monox_kit.errors import ConfigError, CorpusError

PairMode: TypeAlias = Literal["auto", "required", "none"]
Column: TypeAlias = Annotated[str, MinLen(1)]

_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusConfig(Config):
    """Which files are read and how.

    Attributes:
        paths: files, globs, URLs of `corpora.paths.PROTOCOLS`, or hub datasets as
            `hub:NAME[:CONFIG][@SPLIT]` (split `train` by default), each with `:text=COLUMN` behind
            it where its columns have other names. A path that exists as written is that file,
            whatever its characters.
        format: input format of all files; auto goes by each file's name, without .gz or .zst.
        text_column: column that holds the text. Not used for plain text, where a line is the text.
        pair_column: column that holds the second text of a pair.
        label_column: column that holds the gold label or labels. A label is text, a whole number,
            true or false (1 or 0); where any number of classes apply, a list of these.
        id_column: column that holds a key for each document. Text or a whole number; the row number
            where there is none.
        lang_column: column that holds the language tag, such as de.
        pair: whether rows are text pairs: auto, required, or none to ignore them. With auto, all
            rows have a pair or none has.
        delimiter: the character between the fields of CSV and TSV, or its name (tab). None takes
            the one under which the header has the text's column.
        encoding: the encoding of CSV, TSV, JSONL and plain text, such as cp1252. None takes UTF-8,
            UTF-16 by its mark, and in CSV and TSV also cp1252 where the bytes look like it.
        quoting: how quotes in CSV and TSV are read: minimal (fields may stand in them), none (as
            any character), or auto (none for TSV, minimal for CSV).
        label_names: names of the classes 0, 1, ... that files or the model give as numbers. -1 is
            no label; a model's own names stay, and LABEL_0 is none.
        language: the language of a file whose rows do not name one, as FILE=TAG. FILE is a name,
            the end of a path, or a glob.

    The four optional columns may be absent under their default names; under another name they must
    exist. Where labels are not needed, files without the named label column have none, which is
    told. Null and the empty string both mean "none given" in them.
    """

    paths: tuple[str, ...]
    format: FormatName = "auto"
    text_column: Column = "text"
    pair_column: Column = "text_pair"
    label_column: Column = "label"
    id_column: Column = "id"
    lang_column: Column = "lang"
    pair: PairMode = "auto"
    delimiter: str | None = None
    encoding: str | None = None
    quoting: Quoting = "auto"
    label_names: tuple[str, ...] = ()
    language: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        if self.encoding is not None:
            known_encoding(self.encoding)
        delimiter = self.dialect().delimiter
        if delimiter is not None and (
            len(delimiter) != 1 or delimiter in '"\r\n' or not delimiter.isascii()
        ):
            raise ConfigError(
                f"`delimiter`: expected one character, found {self.delimiter!r}. Give one such as "
                "; or the word tab."
            )
        if self.label_names:
            try:
                LabelSet(self.label_names, origin="`label_names`")
            except CorpusError as error:
                raise ConfigError(str(error)) from None
        told_languages(self.language)

    def dialect(self) -> Dialect:
        """How the characters of files are read."""
        encoding = None if self.encoding is None else known_encoding(self.encoding)
        delimiter = _DELIMITER_NAMES.get(self.delimiter or "", self.delimiter)
        return Dialect(delimiter=delimiter, encoding=encoding, quoting=self.quoting)

    def columns(self, *, needs_labels: bool = False) -> Columns:
        """What readers pick; named columns and the pair of `required` must exist.

        A named id or language column must exist in every file: ids would become row numbers, and
        languages unknown, which no later step can tell from files that have none. Of labels, which
        unlabelled text has none of, a pass over the files tells where they are.

        Args:
            needs_labels: whether the label's column must exist, whoever named it.
        """
        required = []
        is_sought = self.is_given("label_column") and not needs_labels
        for name in ("pair_column", "label_column", "id_column", "lang_column"):
            mode = self.pair if name == "pair_column" else "auto"
            if name == "label_column":
                mode = "required" if needs_labels else "none"
            if mode == "required" or (mode == "auto" and self.is_given(name)):
                required.append((f"`{name}`", getattr(self, name)))
        return Columns(
            text=self.text_column,
            pair=None if self.pair == "none" else self.pair_column,
            label=self.label_column,
            id=self.id_column,
            lang=self.lang_column,
            required=tuple(required),
            label_is_sought=is_sought,
        )
