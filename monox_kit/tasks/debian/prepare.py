"""The demo's corpus: Debian's package descriptions, labelled by section, in many languages.

English descriptions become training, unlabelled and dev text; descriptions of other packages, in
English and as translated by people, become the test sets. `docs/data-debian.md` describes both the
files and every rule that a row passes.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from monox_kit.config import Config, Separated
from monox_kit.data import LabelSet
from monox_kit.digest import digest_file
from monox_kit.errors import CorpusError
from monox_kit.progress import Progress, Silent
from monox_kit.tasks.apt import release_name
from monox_kit.tasks.debian.descriptions import (
    Description,
    Package,
    is_transitional,
    is_translated,
    read_descriptions,
    read_packages,
)
from monox_kit.tasks.debian.lists import COMMAND, DebianLists, fetched_lists
from monox_kit.tasks.debian.splits import (
    HeldOut,
    Row,
    distinct_rows,
    first_of_each_source,
    parted,
    unseen_rows,
)
from monox_kit.tasks.folder import (
    DEV,
    FORMAT,
    LABELLED,
    UNLABELLED,
    TaskSummary,
    is_unlabelled,
    language_file,
    new_corpus,
    require_replaceable,
    require_setting,
    reusable,
    task_summary,
    unlabelled_file,
)

KIND = "monoxkit-debian-corpus"

# Sections that name a topic, not a programming language, a desktop or a kind of file.
TOPICS = (
    "admin", "database", "devel", "editors", "electronics", "fonts", "games", "graphics",
    "hamradio", "kernel", "localization", "mail", "math", "net", "science", "sound", "text",
    "video", "web", "x11",
)  # fmt: skip
# Each had at least 200 test rows in Debian 12.
LANGUAGES = ("da", "de", "es", "fr", "it", "ja", "ko", "pl", "pt-BR", "ru", "sk", "uk")

_MIN_TEST_ROWS = 20
_TAG = re.compile(r"[a-z]{2,3}([_-][A-Za-z]{2,8})?(@[a-z]+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class DebianConfig(Config):
    """What to prepare; equal configurations and equal lists give equal bytes.

    Attributes:
        labelled: number of labelled English rows.
        unlabelled: number of English rows without labels, other ones than the labelled.
        dev: number of labelled English rows that choose the weights.
        test_rows: largest number of rows of each test set; a language may offer fewer.
        languages: target languages, such as pt-BR; English is written in any case.
        sections: sections of Debian that become the labels, in their order.
        target_unlabelled: write unlabelled text in the target languages too: the labelled and the
            unlabelled rows as people have translated them, with their ids and without labels.
        seed: seed of which packages are held out and which rows are taken.
    """

    labelled: Annotated[int, Ge(1)] = 1000
    unlabelled: Annotated[int, Ge(0)] = 4000
    dev: Annotated[int, Ge(1)] = 500
    test_rows: Annotated[int, Ge(1)] = 200
    languages: Annotated[tuple[str, ...], Separated()] = LANGUAGES
    sections: Annotated[tuple[str, ...], Separated()] = TOPICS
    target_unlabelled: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        tags = tuple(tag.replace("_", "-") for tag in self.languages)
        object.__setattr__(self, "languages", tags)
        for option, names in (("languages", tags), ("sections", self.sections)):
            repeated = [name for name, count in Counter(names).items() if count > 1]
            require_setting(
                not repeated, option, "each name once", ", ".join(repeated) + " repeated"
            )
        require_setting(len(tags) >= 1, "languages", "at least 1 language", "none")
        wrong = [tag for tag in tags if not _TAG.fullmatch(tag)]
        require_setting(
            not wrong, "languages", "tags such as de and pt-BR", ", ".join(map(repr, wrong))
        )
        require_setting("en" not in tags, "languages", "languages other than English", "en")
        require_setting(len(self.sections) >= 2, "sections", "at least 2", list(self.sections))

    @property
    def planned_rows(self) -> dict[str, int]:
        """Rows of the files whose size is known before they are written."""
        return {LABELLED: self.labelled, UNLABELLED: self.unlabelled, DEV: self.dev}

    def to_json(self) -> dict[str, Any]:
        """The configuration as it stands in the provenance."""
        values = asdict(self)
        if not self.target_unlabelled:  # folders of earlier versions do not tell
            del values["target_unlabelled"]
        return values | {"languages": list(self.languages), "sections": list(self.sections)}


@dataclass(slots=True)
class _Corpus:
    """The rows of every file, by file name, and how many documents fell out and why."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def prepare_debian(
    config: DebianConfig, out: Path, *, progress: Progress | None = None
) -> TaskSummary:
    """Fetch Debian's descriptions and write the corpus folder `out`, or reuse it as it stands.

    A folder that an earlier call wrote under an equal configuration is reused without asking apt,
    so a corpus does not change under work that builds on it.

    Raises:
        ConfigError: a language or section that Debian lacks, or `out` holds something else.
        CorpusError: no apt, no network, too few rows, or a file of `out` was changed.
        LabelMismatchError: `labels.json` of `out` was changed.
        StorageError: the disk refused.
    """
    progress = progress or Silent()
    reused = reusable(out, _head(config), LabelSet(config.sections))
    if reused is not None:
        return task_summary(out, reused, release_name(reused), reused=True)
    require_replaceable(out, KIND, COMMAND)
    with contextlib.ExitStack() as stack:
        names = [_debian_tag(tag) for tag in config.languages]
        with progress.task("fetch Debian's descriptions", 1, "release") as bar:
            lists = stack.enter_context(fetched_lists(names))
            bar.advance()
        return write_corpus(config, lists, out, progress=progress)


def write_corpus(
    config: DebianConfig, lists: DebianLists, out: Path, *, progress: Progress | None = None
) -> TaskSummary:
    """Write the corpus folder `out` from lists that are already here.

    Raises:
        ConfigError: a section that the lists lack, or `out` holds something else.
        CorpusError: too few rows.
        StorageError: the disk refused.
    """
    progress = progress or Silent()
    require_replaceable(out, KIND, COMMAND)
    corpus = _select(config, lists, progress)
    head = {
        **_head(config),
        "release": dict(lists.release),
        "lists": {name: digest_file(path) for name, path in sorted(lists.files.items())},
    }
    with new_corpus(out, head, LabelSet(config.sections)) as writer:
        writer.left_out = corpus.left_out
        for name, rows in sorted(corpus.rows.items()):
            writer.begin(name)
            for row in rows:
                writer.add(name, row.to_json(labelled=not is_unlabelled(name)))
    provenance = writer.provenance()
    return task_summary(out, provenance, release_name(provenance), reused=False)


def _select(config: DebianConfig, lists: DebianLists, progress: Progress) -> _Corpus:
    """Choose the rows of every file."""
    corpus = _Corpus()
    packages = read_packages(lists.packages, config.sections)
    english = read_descriptions(lists.translations["en"], "en", packages)
    for name in [name for name, text in english.items() if is_transitional(text)]:
        del english[name]
        corpus.left_out["transitional"] += 1
    parts = parted((packages[name] for name in english), config.seed)

    held_out = HeldOut()
    for package in parts["test"]:
        held_out.add(english[package.name])
    translations = _translations(
        config, lists, parts["test"], english, left_out=corpus.left_out, progress=progress
    )
    for tag, texts in {"en": english, **translations}.items():
        rows = _test_rows(config, tag, parts["test"], texts)
        corpus.rows[language_file(tag)] = rows
        # A translation may hold English text that stands in a training package too.
        for row in rows:
            held_out.add(texts[row.package.name])

    dev = unseen_rows(first_of_each_source(parts["dev"]), english, held_out, corpus.left_out)
    _require_enough("dev", config.dev, len(dev), config)
    corpus.rows[DEV] = dev[: config.dev]
    for row in corpus.rows[DEV]:
        held_out.add(english[row.package.name])
    train = unseen_rows(parts["train"], english, held_out, corpus.left_out)
    wanted = config.labelled + config.unlabelled
    _require_enough("labelled` and `unlabelled", wanted, len(train), config)
    corpus.rows[LABELLED] = train[: config.labelled]
    corpus.rows[UNLABELLED] = train[config.labelled : wanted]
    if config.target_unlabelled:
        taken = [row.package for row in train[:wanted]]
        translations = _translations(
            config, lists, taken, english, left_out=corpus.left_out, progress=progress
        )
        for tag, texts in translations.items():
            translated = [package for package in taken if package.name in texts]
            rows = unseen_rows(translated, texts, held_out, corpus.left_out, tag)
            corpus.rows[unlabelled_file(tag)] = rows
    return corpus


def _translations(
    config: DebianConfig,
    lists: DebianLists,
    packages: Sequence[Package],
    english: Mapping[str, Description],
    *,
    left_out: Counter[str],
    progress: Progress,
) -> dict[str, dict[str, Description]]:
    """By language tag, the descriptions of `packages` that are in the language."""
    wanted = {package.name: package for package in packages}
    translations = {}
    with progress.task("read translations", len(config.languages), "languages") as bar:
        for tag in config.languages:
            name = _debian_tag(tag)
            found = read_descriptions(lists.translations[name], name, wanted)
            kept = {key: text for key, text in found.items() if is_translated(text, english[key])}
            left_out["untranslated"] += len(found) - len(kept)
            translations[tag] = kept
            bar.advance()
    return translations


def _test_rows(
    config: DebianConfig, tag: str, packages: Sequence[Package], texts: Mapping[str, Description]
) -> list[Row]:
    """The test set of one language: distinct texts, one package of each source."""
    offered = [package for package in packages if package.name in texts]
    rows = distinct_rows(first_of_each_source(offered), texts, tag)
    least = min(_MIN_TEST_ROWS, config.test_rows)
    if len(rows) < least:
        raise CorpusError(
            f"data debian: expected at least {least} test rows in {tag}, found {len(rows)}. "
            f"Leave {tag} out of `languages` or widen `sections`."
        )
    return rows[: config.test_rows]


def _debian_tag(tag: str) -> str:
    """The language as Debian's lists write it."""
    return tag.replace("-", "_")


def _require_enough(option: str, wanted: int, found: int, config: DebianConfig) -> None:
    if found < wanted:
        raise CorpusError(
            f"`{option}`: expected at most the {found} distinct texts that the "
            f"{len(config.sections)} sections offer, found {wanted}. "
            "Ask for fewer rows or widen `sections`."
        )


def _head(config: DebianConfig) -> dict[str, Any]:
    """What a folder must have been made by to be the one that is asked for."""
    return {"kind": KIND, "format": FORMAT, "config": config.to_json()}
