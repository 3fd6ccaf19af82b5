"""XNLI as a corpus: English pairs of MultiNLI to train on, pairs of 15 languages to test.

A share of the English training pairs keeps its labels, the rest is unlabelled text: the setting of
Chi et al. 2020, section 4.1. `docs/tasks.md` says what is read and every rule that a row passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen

from monox_kit.config import Config, Separated
from monox_kit.corpora.paths import HUB_PREFIX, SourceFile
from monox_kit.data import LabelSet
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.progress import Progress, Silent
from monox_kit.tasks.fields import Ids
from monox_kit.tasks.folder import (
    DEV,
    FORMAT,
    LABELLED,
    UNLABELLED,
    RowWriter,
    TaskSummary,
    language_file,
    new_corpus,
    ranks,
    require_replaceable,
    reusable,
    task_summary,
)
from monox_kit.tasks.members import digest_member, in_encoding, matching, release_files, the_file
from monox_kit.tasks.xnli.pairs import LABELS, Pair, read_pairs

KIND = "monoxkit-xnli-corpus"
COMMAND = "data xnli"
RELEASE = "XNLI 1.0"
ENGLISH = "en"
LANGUAGES = (
    "ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh",
)  # fmt: skip
# A part of the release by the end of its path. The archives hold each part in two formats with
# equal rows, of which the first that is there is read.
_DEV = (r"xnli\.dev\.tsv", r"xnli\.dev\.jsonl")
_TEST = (r"xnli\.test\.tsv", r"xnli\.test\.jsonl")
_ENGLISH = (
    r"multinli_1\.0_train\.txt",
    r"multinli_1\.0_train\.jsonl",
    r"multinli\.train\.en\.tsv",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class XnliConfig(Config):
    """What to prepare; equal configurations and an equal release give equal bytes.

    Attributes:
        source: folders or archives of XNLI 1.0 and of MultiNLI 1.0 or XNLI-MT 1.0, as they were
            released; or one dataset of a hub with a configuration for each language, such as
            hub:xnli.
        languages: languages of the test sets, such as de,fr; English is written in any case.
        labelled_share: share of the English training pairs that keep their labels.
        labelled: number of pairs that keep their labels. None goes by `labelled_share`.
        unlabelled: most English pairs without labels. None takes all that are left.
        translations: languages of machine-translated training pairs to write as
            train.LANG.jsonl, which have the ids of the English ones. They need XNLI-MT.
        encoding: encoding of the files. None takes UTF-8, and UTF-16 by its mark.
        seed: seed of which pairs keep their labels.
    """

    source: Annotated[tuple[str, ...], MinLen(1)]
    languages: Annotated[tuple[str, ...], Separated()] = LANGUAGES
    labelled_share: Annotated[float, Gt(0), Le(1)] = 0.2
    labelled: Annotated[int, Ge(1)] | None = None
    unlabelled: Annotated[int, Ge(0)] | None = None
    translations: Annotated[tuple[str, ...], Separated()] = ()
    encoding: str | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        for name, tags in (("languages", self.languages), ("translations", self.translations)):
            if len(set(tags)) < len(tags) or ENGLISH in tags:
                raise ConfigError(
                    f"`{name}`: expected languages other than English, each once, found "
                    f"{','.join(tags)}. Correct the list."
                )
        if self.is_hub and (len(self.source) > 1 or self.translations):
            raise ConfigError(
                f"`source` {self.source[0]}: a hub's dataset stands alone, and has no machine "
                "translations. Leave the others out."
            )

    @property
    def is_hub(self) -> bool:
        """Whether the pairs are those of a hub's dataset."""
        return self.source[0].startswith(HUB_PREFIX)

    def to_json(self) -> dict[str, Any]:
        """The configuration as it stands in the provenance; where the files lie does not count."""
        return {key: value for key, value in asdict(self).items() if key != "source"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """The files of the release that are read: hub names, or members of folders and archives.

    Attributes:
        train: English training pairs.
        translated: machine-translated training pairs by language.
        dev: by language.
        test: by language; several languages may be in one file.
    """

    train: SourceFile | str
    translated: Mapping[str, SourceFile]
    dev: Mapping[str, SourceFile | str]
    test: Mapping[str, SourceFile | str]

    def files(self) -> list[SourceFile | str]:
        """Every part once."""
        parts = (self.train, *self.translated.values(), *self.dev.values(), *self.test.values())
        return list(dict.fromkeys(parts))

    def digests(self) -> dict[str, str]:
        """The digest of each file by its name; of a hub's dataset its name alone."""
        return {
            part if isinstance(part, str) else part.bare_name: (
                "" if isinstance(part, str) else digest_member(part)
            )
            for part in self.files()
        }


def prepare_xnli(config: XnliConfig, out: Path, *, progress: Progress | None = None) -> TaskSummary:
    """Write the corpus folder `out` from the released files, or reuse it as it stands.

    Raises:
        ConfigError: a path of `source` is not there, or `out` holds something else.
        CorpusError: a file of the release is missing or damaged, a language is not in it, or a
            file of `out` was changed.
        StorageError: the disk refused.
    """
    progress = progress or Silent()
    parts = _parts(config)
    labels = LabelSet(LABELS)
    with progress.task("digest the release", 1, "release") as bar:
        head = {
            "kind": KIND,
            "format": FORMAT,
            "config": config.to_json(),
            "release": {"name": RELEASE, "files": parts.digests()},
        }
        bar.advance()
    found = reusable(out, head, labels)
    if found is not None:
        return task_summary(out, found, RELEASE, reused=True)
    require_replaceable(out, KIND, COMMAND)
    with new_corpus(out, head, labels) as writer:
        _fill(config, parts, writer, progress)
    return task_summary(out, writer.provenance(), RELEASE, reused=False)


def _parts(config: XnliConfig) -> _Parts:
    """Which files are read."""
    tags = (ENGLISH, *config.languages)
    if config.is_hub:
        name = config.source[0]
        return _Parts(
            train=f"{name}:{ENGLISH}@train",
            translated={},
            dev={ENGLISH: f"{name}:{ENGLISH}@validation"},
            test={tag: f"{name}:{tag}@test" for tag in tags},
        )
    files = [in_encoding(file, config.encoding) for file in release_files(config.source)]

    def part(patterns: tuple[str, ...], what: str) -> SourceFile:
        there = next((each for each in patterns if matching(files, each)), patterns[0])
        return the_file(files, there, what)

    english = _ENGLISH[-1:] if config.translations else _ENGLISH
    dev, test = part(_DEV, "xnli.dev.tsv"), part(_TEST, "xnli.test.tsv")
    return _Parts(
        train=part(
            english,
            "multinli.train.en.tsv of XNLI-MT 1.0, whose rows are those of the translations"
            if config.translations
            else "multinli_1.0_train.txt of MultiNLI 1.0, or multinli.train.en.tsv of XNLI-MT 1.0",
        ),
        translated={
            tag: part(
                (rf"multinli\.train\.{re.escape(tag)}\.tsv",),
                f"multinli.train.{tag}.tsv of XNLI-MT 1.0",
            )
            for tag in config.translations
        },
        dev={ENGLISH: dev},
        test=dict.fromkeys(tags, test),
    )


def _fill(config: XnliConfig, parts: _Parts, writer: RowWriter, progress: Progress) -> None:
    """Every row of every file."""
    with progress.task("write the corpus", len(parts.files()), "files") as bar:
        _write_training(config, parts.train, writer)
        bar.advance()
        for tag, file in parts.translated.items():
            for pair in read_pairs(file, None, writer.left_out):
                writer.add(f"train.{tag}.jsonl", _row(pair, tag, pair.id))
            bar.advance()
        for tag, dev in parts.dev.items():
            _write_held_out(writer, dev, {tag: DEV})
            bar.advance()
        by_file: dict[SourceFile | str, dict[str, str]] = {}
        for tag, test in parts.test.items():
            by_file.setdefault(test, {})[tag] = language_file(tag)
        for test, names in by_file.items():
            _write_held_out(writer, test, names)
            bar.advance()


def _write_training(config: XnliConfig, file: SourceFile | str, writer: RowWriter) -> None:
    """The English pairs: some with their labels, the others without."""
    total = sum(1 for _ in read_pairs(file, None, Counter()))
    labelled = config.labelled or max(1, round(config.labelled_share * total))
    if labelled > total:
        raise ConfigError(f"`labelled` {labelled}: the release has {total} pairs. Ask for fewer.")
    place = ranks(total, config.seed, "labelled")
    last = total if config.unlabelled is None else labelled + config.unlabelled
    writer.begin(UNLABELLED)
    ids = Ids()
    for rank, pair in zip(place, read_pairs(file, None, writer.left_out)):
        key = ids.distinct(pair.id)
        if rank < labelled:
            writer.add(LABELLED, _row(pair, ENGLISH, key))
        elif rank < last:
            writer.add(UNLABELLED, _row(pair, ENGLISH, key, labelled=False))
    writer.head["repeated_ids"] = ids.num_repeated


def _write_held_out(writer: RowWriter, file: SourceFile | str, names: Mapping[str, str]) -> None:
    """The rows of some languages of one file, each language's to its own file.

    Raises:
        CorpusError: the file has no row in one of the languages.
    """
    ids = {tag: Ids() for tag in names}
    seen: Counter[str] = Counter()
    # A hub's dataset has one language, which its rows do not name.
    languages = frozenset(names) if isinstance(file, SourceFile) else None
    for pair in read_pairs(file, languages, writer.left_out):
        tag = pair.language or next(iter(names))
        seen[tag] += 1
        writer.add(names[tag], _row(pair, tag, ids[tag].distinct(pair.id)))
    absent = [tag for tag in names if not seen[tag]]
    if absent:
        where = file if isinstance(file, str) else file.name
        raise CorpusError(
            f"{where}: expected rows in {', '.join(absent)}, found none. Take other `languages`, "
            f"of XNLI's {', '.join((ENGLISH, *LANGUAGES))}."
        )


def _row(pair: Pair, language: str, key: str, *, labelled: bool = True) -> dict[str, Any]:
    """The line of a pair."""
    label = {"label": pair.label} if labelled else {}
    texts = {"text": pair.premise, "text_pair": pair.hypothesis}
    return {"id": key, **texts, **label, "lang": language}
