"""The tasks that monoxkit prepares: what each needs, its licence, its size and its languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task, for people who choose.

    Attributes:
        name: behind `monoxkit data`.
        what: what is to be told of a text.
        needs: what must be there before.
        licence: of the texts.
        size: rows of the release.
        languages: of the test sets.
    """

    name: str
    what: str
    needs: str
    licence: str
    size: str
    languages: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All tasks.

    Attributes:
        tasks: in the order of the help page.
    """

    tasks: tuple[Task, ...]

    def to_json(self) -> Mapping[str, Any]:
        """The tasks as plain JSON values."""
        return {"tasks": [asdict(task) for task in self.tasks]}


CATALOGUE = Catalogue(
    (
        Task(
            name="debian",
            what="the section of a software package, by its description (20 classes)",
            needs="apt-get with Debian's sources; it fetches about 37 MB",
            licence="free: that of each package's description",
            size="9,420 English training texts; 22 to 2,416 test texts a language",
            languages="en and 20 others of Debian's, such as da, de, es, fr, it, ja, pt-BR, ru",
        ),
        Task(
            name="manpages",
            what="the section of a manual page, by its text without its name (8 classes, long)",
            needs="apt-get with Debian's sources; it fetches about 37 MB",
            licence="free: that of each page",
            size="682 English pages to train on; 139 to 305 test pages a language",
            languages="en and others of Debian's, such as de, es, fr, it, ja, pl, pt-BR, ru, uk",
        ),
        Task(
            name="xnli",
            what="whether a sentence follows from another, contradicts it or neither (pairs)",
            needs="XNLI-1.0.zip, and multinli_1.0.zip or XNLI-MT-1.0.zip; or hub:xnli",
            licence="XNLI: CC BY-NC 4.0; MultiNLI: that of the OANC and of its sources",
            size="392,702 English training pairs; 2,490 dev and 5,010 test pairs a language",
            languages="en ar bg de el es fr hi ru sw th tr ur vi zh",
        ),
        Task(
            name="cls",
            what="whether a review praises or blames (books, dvd or music)",
            needs="cls-acl10-unprocessed.tar.gz (Webis-CLS-10)",
            licence="customers' reviews, published for research: see the release's page",
            size="2,000 training and 2,000 test reviews a language and domain, and unlabelled ones",
            languages="en de fr ja",
        ),
    )
)
