"""CLS as a corpus: English reviews of one kind of product to train on, four languages to test.

`docs/tasks.md` says what is read and every rule that a row passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from monox_kit.config import Config, Separated
from monox_kit.corpora.paths import SourceFile
from monox_kit.data import LabelSet
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.progress import Progress, Silent
from monox_kit.tasks.cls.items import read_items
from monox_kit.tasks.fields import BLANK, text_of
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
from monox_kit.tasks.members import digest_member, in_encoding, release_files, the_file

KIND = "monoxkit-cls-corpus"
COMMAND = "data cls"
LABELS = ("negative", "positive")
ENGLISH = "en"
# Language tag to the release's own name of the folder.
_FOLDERS = {"en": "en", "de": "de", "fr": "fr", "ja": "jp"}
LANGUAGES = tuple(tag for tag in _FOLDERS if tag != ENGLISH)
# A review of three stars is neither.
_MIDDLE = 3.0
_TRAIN, _TEST, _UNLABELED = "train", "test", "unlabeled"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClsConfig(Config):
    """What to prepare; equal configurations and an equal release give equal bytes.

    Attributes:
        source: folder or archive of cls-acl10-unprocessed, as it was released.
        domain: which reviews are taken: books, dvd or music.
        languages: languages of the test sets, of de,fr,ja; English is written in any case.
        dev_share: share of the English training reviews that is held out as the dev set.
        unlabelled: most English reviews without labels. None takes all that there are.
        summary: put each review's title on a line above its text.
        encoding: encoding of the files. None takes the one that a file declares, else UTF-8.
        seed: seed of which reviews are held out and which stay without labels.
    """

    source: Annotated[tuple[str, ...], MinLen(1)]
    domain: Literal["books", "dvd", "music"]
    languages: Annotated[tuple[str, ...], Separated()] = LANGUAGES
    dev_share: Annotated[float, Gt(0), Lt(1)] = 0.2
    unlabelled: Annotated[int, Ge(0)] | None = None
    summary: bool = False
    encoding: str | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        Config.__post_init__(self)
        if len(set(self.languages)) < len(self.languages) or not {*self.languages} <= {*LANGUAGES}:
            raise ConfigError(
                f"`languages`: expected some of {','.join(LANGUAGES)}, each once, found "
                f"{','.join(self.languages)}. Correct the list."
            )

    def to_json(self) -> dict[str, Any]:
        """The configuration as it stands in the provenance; where the files lie does not count."""
        return {key: value for key, value in asdict(self).items() if key != "source"}


def prepare_cls(config: ClsConfig, out: Path, *, progress: Progress | None = None) -> TaskSummary:
    """Write the corpus folder `out` from the released files, or reuse it as it stands.

    Raises:
        ConfigError: a path of `source` is not there, or `out` holds something else.
        CorpusError: a file of the release is missing or damaged, or a file of `out` was changed.
        StorageError: the disk refused.
    """
    progress = progress or Silent()
    files = _files(config)
    labels = LabelSet(LABELS)
    release = f"CLS {config.domain}"
    with progress.task("digest the release", len(files), "files") as bar:
        digests = {}
        for name, file in files.items():
            digests[name] = digest_member(file)
            bar.advance()
    head = {
        "kind": KIND,
        "format": FORMAT,
        "config": config.to_json(),
        "release": {"name": release, "files": digests},
    }
    found = reusable(out, head, labels)
    if found is not None:
        return task_summary(out, found, release, reused=True)
    require_replaceable(out, KIND, COMMAND)
    task = progress.task("write the corpus", len(files), "files")
    with task as bar, new_corpus(out, head, labels) as writer:
        for name in (LABELLED, UNLABELLED, DEV):
            writer.begin(name)
        for name, file in files.items():
            language, _, part = name.partition("/")
            _fill(config, file, language, part, writer)
            bar.advance()
    return task_summary(out, writer.provenance(), release, reused=False)


def _files(config: ClsConfig) -> dict[str, SourceFile]:
    """The files that are read, by language and part."""
    files = [in_encoding(file, config.encoding) for file in release_files(config.source)]
    wanted = [(ENGLISH, _TRAIN), (ENGLISH, _UNLABELED), (ENGLISH, _TEST)]
    wanted += [(language, _TEST) for language in config.languages]
    if config.unlabelled == 0:
        wanted.remove((ENGLISH, _UNLABELED))
    found = {}
    for language, part in wanted:
        path = f"{_FOLDERS[language]}/{config.domain}/{part}.review"
        found[f"{language}/{part}"] = the_file(files, path.replace(".", r"\."), path)
    return found


def _fill(config: ClsConfig, file: SourceFile, language: str, part: str, writer: RowWriter) -> None:
    """The rows of one file of the release."""
    destination = _destination(config, file, language, part)
    for item in read_items(file):
        name = destination(item.number)
        if name is None:
            continue
        text = text_of(item.text, item.where, "text")
        title = text_of(item.summary, item.where, "summary") if config.summary else None
        if text is None:
            writer.left_out[BLANK] += 1
        elif name != UNLABELLED and item.rating == _MIDDLE:
            writer.left_out["rating of three"] += 1
        else:
            row = {
                "id": f"{language}-{part}-{item.number}",
                "text": text if title is None else f"{title}\n{text}",
            }
            if name != UNLABELLED:
                row["label"] = LABELS[item.rating > _MIDDLE]
            writer.add(name, row | {"lang": language})


def _destination(
    config: ClsConfig, file: SourceFile, language: str, part: str
) -> Callable[[int], str | None]:
    """Which file of the corpus an item of a file goes to, by its number; None for no file."""
    if part == _TEST:
        return lambda number: language_file(language)
    if part == _UNLABELED and config.unlabelled is None:
        return lambda number: UNLABELLED
    total = sum(1 for _ in read_items(file))
    if part == _UNLABELED:
        places, most = ranks(total, config.seed, UNLABELLED), config.unlabelled or 0
        return lambda number: UNLABELLED if places[number] < most else None
    places, most = ranks(total, config.seed, DEV), round(config.dev_share * total)
    if not 0 < most < total:
        raise CorpusError(
            f"{file.name}: expected enough reviews for a dev set of {config.dev_share:.0%} and for "
            f"training, found {total}. Take another `dev_share`."
        )
    return lambda number: DEV if places[number] < most else LABELLED
