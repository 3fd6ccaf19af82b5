"""Small releases of XNLI, MultiNLI, XNLI-MT and CLS, in the exact layout of the real ones."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi",
             "zh")  # fmt: skip
GOLD = ("neutral", "entailment", "contradiction")
WORDS = ("game", "mail", "font", "kernel", "sound", "video", "editor", "alpha", "beta", "gamma",
         "delta", "zeta", "theta", "iota")  # fmt: skip
XNLI_COLUMNS = (
    "language", "gold_label", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse",
    "sentence2_parse", "sentence1", "sentence2", "promptID", "pairID", "genre", "label1", "label2",
    "label3", "label4", "label5", "sentence1_tokenized", "sentence2_tokenized", "match",
)  # fmt: skip
MULTINLI_COLUMNS = (
    "gold_label", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse",
    "sentence2_parse", "sentence1", "sentence2", "promptID", "pairID", "genre", "label1", "label2",
    "label3", "label4", "label5",
)  # fmt: skip


def words(number: int) -> str:
    """A sentence of its own for each number, of words that the tiny tokenizers know."""
    return " ".join(WORDS[(number // len(WORDS) ** power) % len(WORDS)] for power in range(3))


def xnli_rows(count: int, languages: Sequence[str] = LANGUAGES) -> list[dict[str, str]]:
    """Rows as `xnli.test.tsv` has them: every language in turn, with equal ids."""
    return [
        {
            "language": language,
            "gold_label": GOLD[number % 3],
            "sentence1": f'{words(number)} "{language}.',
            "sentence2": f"{WORDS[number % 3]} {words(number + 7)}",
            "promptID": str(number // 3),
            "pairID": str(number),
            "genre": "facetoface",
            **{f"label{index}": GOLD[number % 3] for index in range(1, 6)},
            "sentence1_tokenized": words(number),
            "sentence2_tokenized": words(number + 7),
            "match": "True",
        }
        for language in languages
        for number in range(count)
    ]


def multinli_rows(count: int) -> list[dict[str, str]]:
    """Rows as `multinli_1.0_train.txt` has them."""
    return [
        {
            "gold_label": GOLD[number % 3],
            "sentence1_binary_parse": "( a ( b ) )",
            "sentence1": words(number),
            "sentence2": f"{WORDS[number % 3]} {words(number + 5)}",
            "promptID": f"{number // 3}",
            "pairID": f"{number}n",
            "genre": "fiction",
            "label1": GOLD[number % 3],
        }
        for number in range(count)
    ]


def tsv(columns: Sequence[str], rows: Sequence[Mapping[str, str]], end: str = "\n") -> bytes:
    """Tab-separated lines under a header; nothing is quoted."""
    lines = ["\t".join(columns), *("\t".join(row.get(one, "") for one in columns) for row in rows)]
    return "".join(f"{line}{end}" for line in lines).encode()


def jsonl(rows: Sequence[Mapping[str, str]]) -> bytes:
    """The rows as JSON lines, keys in the release's order, characters escaped as there."""
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()


def translated(count: int, language: str) -> bytes:
    """A file as `multinli.train.de.tsv`."""
    rows = [
        {
            "premise": f"{language} {words(number)}",
            "hypo": f"{WORDS[number % 3]} {language}",
            "label": "contradictory" if number % 3 == 2 else GOLD[number % 3],
        }
        for number in range(count)
    ]
    return tsv(("premise", "hypo", "label"), rows)


def xnli_files(
    train: int = 60, dev: int = 9, test: int = 12, languages: Sequence[str] = LANGUAGES
) -> dict[str, bytes]:
    """The three releases as they lie in their archives."""
    files = {}
    for part, count in (("dev", dev), ("test", test)):
        rows = xnli_rows(count, languages)
        files[f"XNLI-1.0/xnli.{part}.tsv"] = tsv(XNLI_COLUMNS, rows)
        files[f"XNLI-1.0/xnli.{part}.jsonl"] = jsonl(rows)
    files["multinli_1.0/multinli_1.0_train.txt"] = tsv(MULTINLI_COLUMNS, multinli_rows(train))
    files["multinli_1.0/multinli_1.0_train.jsonl"] = jsonl(multinli_rows(train))
    for language in ("en", "de"):
        files[f"XNLI-MT-1.0/multinli/multinli.train.{language}.tsv"] = translated(train, language)
    return files


def review(number: int, *, rating: float | None = None, summary: str = "") -> str:
    """An item as the files of CLS have them, praise and blame in turn."""
    stars = (5.0 if number % 2 else 1.0) if rating is None else rating
    tone = "sound video" if number % 2 else "kernel mail"
    fields = {
        "category": "books",
        "rating": f"{stars}",
        "asin": f"B{number:06d}",
        "date": "10 June 2009",
        "url": f"example.org/{number}?a=1&b=2",
        "text": f"{tone} {words(number)} & more\n{words(number + 3)}",
        "title": "A Book",
        "summary": summary or f"{tone}!",
        "reviewer": "R. Reader",
        "helpful": "3",
    }
    body = "".join(f"<{key}>{escape(value)}</{key}>\n" for key, value in fields.items())
    return f"<item>\n{body}</item>\n"


def reviews(*items: str, head: str = '<?xml version="1.0" encoding="UTF-8"?>\n') -> bytes:
    """A file of items."""
    return f"{head}<items>\n{''.join(items)}</items>\n".encode()


def cls_files(train: int = 40, test: int = 12, unlabeled: int = 30) -> dict[str, bytes]:
    """The release as it lies in its archive: four languages, three domains."""
    files = {}
    for language in ("en", "de", "fr", "jp"):
        for domain in ("books", "dvd", "music"):
            for part, count in (("train", train), ("test", test), ("unlabeled", unlabeled)):
                first = {"train": 0, "test": 1000, "unlabeled": 2000}[part]
                path = f"cls-acl10-unprocessed/{language}/{domain}/{part}.review"
                files[path] = reviews(*(review(first + number) for number in range(count)))
    return files


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The files in a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    """The files in a zip archive, with the odd members that macOS adds."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            folder, _, file = name.rpartition("/")
            archive.writestr(f"__MACOSX/{folder}/._{file}", b"\0\5\x16\7")
        archive.writestr("XNLI-1.0/._.DS_Store", b"\0")
    return path


def tarred(path: Path, files: Mapping[str, bytes]) -> Path:
    """The files in a tar archive compressed with gzip, with a link out of it."""
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("cls-acl10-unprocessed/en/books/link.review")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
