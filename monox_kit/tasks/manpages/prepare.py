"""Debian's manual pages as a corpus: English pages to train on, their translations to test.

`docs/tasks.md` says what is read and every rule that a page passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt

from monox_kit.config import Config, Separated
from monox_kit.data import LabelSet
from monox_kit.digest import digest_file
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.progress import Progress, Silent
from monox_kit.tasks.apt import Index, private_apt, release_name
from monox_kit.tasks.fields import BLANK, normalized, text_of
from monox_kit.tasks.folder import (
    DEV,
    FORMAT,
    LABELLED,
    UNLABELLED,
    TaskSummary,
    language_file,
    new_corpus,
    require_replaceable,
    require_setting,
    reusable,
    task_summary,
)
from monox_kit.tasks.manpages.packages import PageFile, package_pages
from monox_kit.tasks.manpages.roff import read_roff
from monox_kit.tasks.manpages.splits import (
    Page,
    Pages,
    distinct,
    is_translated,
    ordering_key,
    part_of,
)

KIND = "monoxkit-manpages-corpus"
COMMAND = "data manpages"
ENGLISH = "en"
SECTIONS = ("1", "2", "3", "4", "5", "6", "7", "8")
LANGUAGES = ("de", "es", "fr", "it", "ja", "pl", "pt-BR", "ro", "ru", "uk")
_NOT_HELD_OUT = "translation of no held-out page"
_ADVICE = "Run it where apt has Debian's sources, and copy the folder."
_PACKAGE = re.compile(r"manpages(?:-(?P<language>[a-z]{2,3}(?:-[a-z]{2})?))??(?P<dev>-dev)?")
_TAG = re.compile(r"[a-z]{2,3}([_-][A-Z]{2})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class ManpagesConfig(Config):
    """What to prepare; equal configurations and equal packages give equal bytes.

    Attributes:
        labelled: number of labelled English pages.
        unlabelled: most English pages without labels, other ones than the labelled. None takes all
            that are left.
        dev_share: share of the page names whose English pages choose the weights.
        test_share: share of the page names that are held out, in every language.
        test_rows: most pages of each test set. None takes all that are held out.
        languages: target languages, such as pt-BR; English is written in any case.
        sections: sections of the manual that become the labels, in their order.
        seed: seed of which page names are held out and which pages keep their labels.
    """

    labelled: Annotated[int, Ge(1)] = 250
    unlabelled: Annotated[int, Ge(0)] | None = None
    dev_share: Annotated[float, Gt(0), Lt(1)] = 0.1
    test_share: Annotated[float, Gt(0), Lt(1)] = 0.3
    test_rows: Annotated[int, Ge(1)] | None = None
    languages: Annotated[tuple[str, ...], Separated()] = LANGUAGES
    sections: Annotated[tuple[str, ...], Separated()] = SECTIONS
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
        wrong = [tag for tag in tags if not _TAG.fullmatch(tag) or tag == ENGLISH]
        require_setting(
            bool(tags) and not wrong,
            "languages",
            "languages other than English, with tags such as de and pt-BR",
            ", ".join(map(repr, wrong)) or "none",
        )
        require_setting(
            len(self.sections) >= 2 and {*self.sections} <= {*SECTIONS},
            "sections",
            f"at least 2 of {','.join(SECTIONS)}",
            ",".join(self.sections),
        )
        require_setting(
            self.dev_share + self.test_share < 1,
            "dev_share` and `test_share",
            "less than 1 together, so that pages are left to train on",
            self.dev_share + self.test_share,
        )

    @property
    def planned_rows(self) -> dict[str, int]:
        """Rows of the files whose size is known before they are written."""
        return {LABELLED: self.labelled}

    def to_json(self) -> dict[str, Any]:
        """The configuration as it stands in the provenance."""
        return asdict(self) | {"languages": list(self.languages), "sections": list(self.sections)}


def prepare_manpages(
    config: ManpagesConfig, out: Path, *, progress: Progress | None = None
) -> TaskSummary:
    """Fetch Debian's packages of manual pages and write the corpus folder `out`.

    A folder that an earlier call wrote under an equal configuration is reused without asking apt.

    Raises:
        ConfigError: Debian has no pages in a language, or `out` holds something else.
        CorpusError: no apt, no network, a damaged package, too few pages, or a file of `out` was
            changed.
        LabelMismatchError: `labels.json` of `out` was changed.
        StorageError: the disk refused.
    """
    progress = progress or Silent()
    reused = reusable(out, _head(config), LabelSet(config.sections))
    if reused is not None:
        return task_summary(out, reused, release_name(reused), reused=True)
    require_replaceable(out, KIND, COMMAND)
    with private_apt(COMMAND, _ADVICE) as apt:
        with progress.task("fetch Debian's manual pages", 2, "steps") as bar:
            index = apt.update()
            bar.advance()
            packages = apt.download(_wanted(config.languages, index))
            bar.advance()
        return write_pages(config, packages, index.release, out, progress=progress)


def write_pages(
    config: ManpagesConfig,
    packages: Mapping[str, Path],
    release: Mapping[str, str],
    out: Path,
    *,
    progress: Progress | None = None,
) -> TaskSummary:
    """Write the corpus folder `out` from packages that are already here.

    Args:
        config: what to prepare.
        packages: files by the package's name.
        release: what the release says of itself.
        out: the folder.
        progress: where progress is reported.

    Raises:
        ConfigError: `out` holds something else.
        CorpusError: a package is damaged, or there are too few pages.
        StorageError: the disk refused.
    """
    progress = progress or Silent()
    require_replaceable(out, KIND, COMMAND)
    pages = _read(config, packages, progress)
    rows = _split(config, pages)
    head = {
        **_head(config),
        "release": dict(release),
        "packages": {
            name: {"file": path.name, "sha256": digest_file(path)}
            for name, path in sorted(packages.items())
        },
    }
    with new_corpus(out, head, LabelSet(config.sections)) as writer:
        writer.left_out = pages.left_out
        for name, (language, found) in sorted(rows.items()):
            writer.begin(name)
            for page in found:
                label = {} if name == UNLABELLED else {"label": page.section}
                writer.add(name, {"id": page.id, "text": page.text, **label, "lang": language})
    provenance = writer.provenance()
    return task_summary(out, provenance, release_name(provenance), reused=False)


def _wanted(languages: Sequence[str], index: Index) -> list[str]:
    """The names of the packages that have the pages of English and of some languages.

    Raises:
        ConfigError: a language has none; those that have some are named.
    """
    offered: dict[str, list[str]] = {}
    with index.packages.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            key, _, name = line.strip().partition(": ")
            match = _PACKAGE.fullmatch(name) if key == "Package" else None
            if match is not None:
                offered.setdefault(match["language"] or ENGLISH, []).append(name)
    found = list(offered.get(ENGLISH, ()))
    absent = []
    for tag in languages:
        # One package may have the pages of several countries: manpages-zh.
        keys = (tag.lower(), tag.partition("-")[0])
        names = next((offered[key] for key in keys if key in offered), None)
        if names is None:
            absent.append(tag)
        else:
            found.extend(names)
    if absent or ENGLISH not in offered:
        listed = ", ".join(sorted({*offered} - {ENGLISH}))
        raise ConfigError(
            f"`languages`: expected languages with manual pages in Debian {index.codename} "
            f"({listed or 'none'}), found {', '.join(absent) or 'none of English'}. Take some of "
            "the listed."
        )
    return sorted(set(found))


def _read(config: ManpagesConfig, packages: Mapping[str, Path], progress: Progress) -> Pages:
    """The pages that can be used, of English and of the target languages."""
    pages = Pages({tag: {} for tag in (ENGLISH, *config.languages)})
    with progress.task("read manual pages", len(packages), "packages") as bar:
        for _, path in sorted(packages.items()):
            for file in package_pages(path):
                tag = file.language.replace("_", "-")
                if tag not in pages.by_language or file.section not in config.sections:
                    continue
                if tag != ENGLISH and _part(config, file.name.casefold()) != "test":
                    pages.drop(_NOT_HELD_OUT)  # most are: they need not be read
                else:
                    _take(file, pages.by_language[tag], pages)
            bar.advance()
    return pages


def _take(file: PageFile, into: dict[str, Page], pages: Pages) -> None:
    """Add a page to those of its language, or count why it is left out."""
    if file.source is None:
        pages.drop("link to another page")
        return
    if not file.source.strip():
        pages.drop("empty file")
        return
    read = read_roff(file.source, file.language)
    text = None if read.text is None else text_of(read.text, file.where, "text")
    if text is None and read.num_redirects:
        pages.drop("redirect to another page (.so)")
    elif read.is_mdoc:
        pages.drop("written with mdoc")
    elif text is None:
        pages.drop(BLANK if read.sections else "no section")
    elif file.id in into:
        pages.drop("page in two packages")
    else:
        into[file.id] = Page(file.id, file.name.casefold(), file.section, text)


def _split(config: ManpagesConfig, pages: Pages) -> dict[str, tuple[str, list[Page]]]:
    """The language and the pages of every file, by the file's name.

    A page name is held out in all languages or in none, so that no translation of a training page
    is tested on; of other languages, the translations of held-out English pages alone are kept.
    """
    english, seed = pages.by_language[ENGLISH], config.seed
    parts: dict[str, list[Page]] = {"test": [], "dev": [], "train": []}
    for page in sorted(english.values(), key=lambda page: ordering_key(seed, "page", page.id)):
        parts[_part(config, page.name)].append(page)
    held_out = {page.id: page for page in parts["test"]}
    test = distinct(parts["test"], pages, set())
    rows = {language_file(ENGLISH): (ENGLISH, test[: config.test_rows])}
    for tag in config.languages:
        offered = pages.by_language[tag]
        found = [offered[id] for id in held_out if id in offered]
        pages.drop(_NOT_HELD_OUT, len(offered) - len(found))
        translated = [page for page in found if is_translated(page, held_out[page.id])]
        pages.drop("left in English", len(found) - len(translated))
        kept = distinct(translated, pages, set())
        if not kept:
            raise CorpusError(
                f"{COMMAND}: expected translations into {tag} of the {len(held_out)} held-out "
                f"pages, found none among {len(offered)} pages. Leave {tag} out of `languages`, or "
                "raise `test_share`."
            )
        rows[language_file(tag)] = (tag, kept[: config.test_rows])
    seen = {normalized(page.text) for page in parts["test"]}
    dev, train = (distinct(parts[part], pages, seen) for part in ("dev", "train"))
    rows[DEV] = (ENGLISH, _enough("dev_share", 1, dev))
    rest = _enough("labelled", config.labelled, train)
    rows[LABELLED] = (ENGLISH, rest[: config.labelled])
    last = None if config.unlabelled is None else config.labelled + config.unlabelled
    rows[UNLABELLED] = (ENGLISH, rest[config.labelled : last])
    return rows


def _part(config: ManpagesConfig, name: str) -> str:
    return part_of(name, config.seed, test=config.test_share, dev=config.dev_share)


def _enough(option: str, wanted: int, found: list[Page]) -> list[Page]:
    if len(found) < wanted:
        raise CorpusError(
            f"`{option}`: expected at most the {len(found)} English pages that are left to train "
            f"on, found {wanted}. Ask for fewer, or hold fewer out."
        )
    return found


def _head(config: ManpagesConfig) -> dict[str, Any]:
    """What a folder must have been made by to be the one that is asked for."""
    return {"kind": KIND, "format": FORMAT, "config": config.to_json()}
