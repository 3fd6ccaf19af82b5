"""Debian's package index and translated descriptions, fetched with apt into a folder of our own.

apt does the work that it is good at (mirrors, proxies, signatures); the machine's own lists, cache
and configuration are read at most and never changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monox_kit.durable import disk_errors, make_folder, write_file
from monox_kit.errors import ConfigError, CorpusError

WITHOUT_APT = (
    "Pass your own text instead, `monoxkit demo --data DIR`, where DIR holds labelled.jsonl, "
    "unlabelled.jsonl, dev.jsonl, test.<lang>.jsonl and labels.json."
)
_ETC = Path("/etc/apt")
_COMPONENT = "main"
# Fetching takes 6 s on a fast line; a slow one still gets this long.
_UPDATE_TIMEOUT_S = 900.0
_QUERY_TIMEOUT_S = 60.0
# Digest, size, name; a size of 3 digits or more, for a language may have an empty list.
_TRANSLATION = re.compile(
    rf"\s\d{{3,}}\s+{_COMPONENT}/i18n/Translation-([A-Za-z_@]+)(?:\.[a-z0-9]+)?$"
)


@dataclass(frozen=True, slots=True)
class DebianLists:
    """The lists of one Debian release, as plain text files.

    Attributes:
        release: what the release file says of itself (codename, suite, version, date ...).
        packages: the `Packages` index of the `main` component.
        translations: language tag as Debian writes it (`pt_BR`) to its `Translation` list; always
            with `en`.
    """

    release: Mapping[str, str]
    packages: Path
    translations: Mapping[str, Path]

    @property
    def files(self) -> dict[str, Path]:
        """Every list by a short name, `Packages` or `Translation-<language>`."""
        named = {f"Translation-{name}": path for name, path in self.translations.items()}
        return {"Packages": self.packages, **named}


@contextlib.contextmanager
def fetched_lists(languages: Sequence[str]) -> Iterator[DebianLists]:
    """Fetch the lists of this machine's Debian release; they are removed when the block ends.

    Args:
        languages: tags as Debian writes them, such as `de` and `pt_BR`; English is always fetched.

    Raises:
        ConfigError: Debian has no translations into one of `languages`; the offered are named.
        CorpusError: there is no apt, apt failed, or the machine has no Debian package source.
    """
    program = shutil.which("apt-get")
    if program is None:
        raise CorpusError(
            f"data debian: expected apt-get on this machine, found none. {WITHOUT_APT}"
        )
    wanted = ["en", *(name for name in languages if name != "en")]
    with disk_errors(tempfile.gettempdir()):
        temporary = tempfile.TemporaryDirectory(prefix="monoxkit-apt-")
    with temporary as name:
        root = Path(name)
        # As root, apt downloads as the user _apt, who must be able to walk in.
        root.chmod(0o755)
        environment = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(_configured(root, wanted))}
        # Without its package cache, which only installing needs, `update` takes half the time.
        update = [program, "update", "-o", "pkgCacheFile::Generate=false"]
        finished = _run(update, environment, _UPDATE_TIMEOUT_S)
        yield _found_lists(program, environment, wanted, finished)


def read_stanzas(path: Path, fields: Collection[str]) -> Iterator[dict[str, str]]:
    """Each stanza of a deb822 file in order, with only the named fields, one in memory at a time.

    Values keep their continuation lines, each with its leading space; bytes that are not UTF-8
    become U+FFFD.

    Source: Debian Policy, section 5.1, the syntax of control files.
    """
    stanza: dict[str, str] = {}
    lines: list[str] = []
    field = ""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as stream:
        for line in stream:
            if line[0] in " \t":
                if field:
                    lines.append(line.rstrip("\n"))
                continue
            if field:
                stanza[field] = "\n".join(lines)
                field = ""
            if not line.strip():
                if stanza:
                    yield stanza
                    stanza = {}
                continue
            name, _, value = line.partition(":")
            if name in fields:
                field, lines = name, [value.strip()]
    if field:
        stanza[field] = "\n".join(lines)
    if stanza:
        yield stanza


def _configured(root: Path, languages: Sequence[str]) -> Path:
    """Write a private apt configuration below `root` and return the file for `APT_CONFIG`."""
    parts = make_folder(root / "parts")
    for folder in ("lists/partial", "cache/archives/partial"):
        make_folder(root / folder)
    # The machine's own settings stay: proxies, certificates. apt reads the parts by name, then
    # its main file; the machine's main file becomes the last part, and ours has the last word.
    for source in [*sorted(_ETC.glob("apt.conf.d/*")), _ETC / "apt.conf"]:
        name = "zzzz-main" if source.parent == _ETC else source.name
        with contextlib.suppress(OSError):
            content = source.read_bytes()
            # Such files only add further lists: icons, file contents, names of commands.
            if b"Acquire::IndexTargets" not in content:
                write_file(parts / name, content)
    # The block form: `-o Acquire::Languages={...}` never ends. `#clear` undoes the files of
    # container images that switch languages off, and the hooks of desktops.
    block = " ".join(f'"{language}";' for language in languages)
    last = root / "last.conf"
    write_file(
        last,
        f"""#clear Acquire::Languages;
Acquire::Languages {{ {block} }};
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Acquire::GzipIndexes "false";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
""".encode(),
    )
    settings = {
        "Dir::State::Lists": root / "lists",
        "Dir::Cache": root / "cache",
        "Dir::Etc::Parts": parts,
        "Dir::Etc::Main": last,
    }
    path = root / "apt.conf"
    write_file(path, "".join(f'{key} "{value}";\n' for key, value in settings.items()).encode())
    return path


def _run(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run apt to its end; only a command that cannot run or does not end is an error here."""
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CorpusError(
            f"data debian: expected `{' '.join(command[:2])}` to end within {timeout_s:.0f} s, "
            f"found it still running. Check the network and run again. {WITHOUT_APT}"
        ) from None
    except OSError as error:
        raise CorpusError(
            f"data debian: expected to run {command[0]}, found: {error}. {WITHOUT_APT}"
        ) from error


def _found_lists(
    program: str,
    environment: Mapping[str, str],
    languages: Sequence[str],
    update: subprocess.CompletedProcess[str],
) -> DebianLists:
    """The lists that `apt-get update` has left; a missing one is an error that quotes apt."""
    fields = ("FILENAME", "ORIGIN", "LABEL", "CODENAME", "COMPONENT", "CREATED_BY", "LANGUAGE")
    layout = "|".join(f"$({field})" for field in fields)
    targets = _run([program, "indextargets", "--format", layout], environment, _QUERY_TIMEOUT_S)
    rows = [dict(zip(fields, line.split("|"))) for line in targets.stdout.splitlines()]
    # A machine may have other vendors' sources, and Debian's own updates and security suites,
    # whose code names carry a dash; the release itself is the one with the translations.
    debian = [
        row
        for row in rows
        if (row["ORIGIN"], row["LABEL"], row["COMPONENT"]) == ("Debian", "Debian", _COMPONENT)
        and "-" not in row["CODENAME"]
    ]
    packages = [row for row in debian if row["CREATED_BY"] == "Packages"]
    if not packages:
        others = sorted({row["ORIGIN"] for row in rows} - {"Debian"})
        raise CorpusError(
            f"data debian: expected apt to fetch a Debian release's {_COMPONENT} lists, found "
            f"{'only lists of ' + ', '.join(others) if others else 'none'}; apt says: "
            f"{_last_line(update)!r}. Check the network and apt's sources. {WITHOUT_APT}"
        )
    index = Path(packages[0]["FILENAME"])
    release_file = _release_file(index)
    offered = _offered_languages(release_file)
    absent = [name for name in languages if name not in offered]
    if absent:
        listed = ", ".join(sorted(offered - {"en"})).replace("_", "-")
        raise ConfigError(
            f"`languages`: expected languages with translated descriptions in Debian "
            f"{packages[0]['CODENAME']} ({listed}), found {', '.join(absent).replace('_', '-')}. "
            "Take some of the listed."
        )
    translations = {
        row["LANGUAGE"]: Path(row["FILENAME"])
        for row in debian
        if row["CREATED_BY"] == "Translations" and row["CODENAME"] == packages[0]["CODENAME"]
    }
    for language in languages:
        if language not in translations or not translations[language].is_file():
            raise CorpusError(
                f"data debian: expected apt to fetch Translation-{language}, found no list; apt "
                f"says: {_last_line(update)!r}. Check the network and run again. {WITHOUT_APT}"
            )
    return DebianLists(
        release=_release_fields(release_file),
        packages=index,
        translations={language: translations[language] for language in languages},
    )


def _release_file(index: Path) -> Path:
    """The signed release file that belongs to a `Packages` list of apt's lists folder."""
    prefix = index.name.split(f"_{_COMPONENT}_")[0]
    for name in (f"{prefix}_InRelease", f"{prefix}_Release"):
        if (index.parent / name).is_file():
            return index.parent / name
    raise CorpusError(
        f"data debian: expected {prefix}_InRelease beside apt's lists, found none. {WITHOUT_APT}"
    )


def _offered_languages(release_file: Path) -> frozenset[str]:
    """The languages that the release file lists descriptions in."""
    with release_file.open(encoding="utf-8", errors="replace") as stream:
        found = (_TRANSLATION.search(line.rstrip()) for line in stream)
        return frozenset(match.group(1) for match in found if match)


def _release_fields(release_file: Path) -> dict[str, str]:
    """What the release file says of itself, in lower-case keys."""
    wanted = ("Origin", "Label", "Suite", "Version", "Codename", "Date")
    fields: dict[str, str] = {}
    with release_file.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _, value = line.partition(":")
            if name in wanted:
                fields.setdefault(name.lower(), value.strip())
    return fields | {"component": _COMPONENT}


def _last_line(update: subprocess.CompletedProcess[str]) -> str:
    """apt's last error, else the last failed download with its reason, else its last line."""
    lines = [line.strip() for line in (update.stdout + update.stderr).splitlines() if line.strip()]
    for mark in ("E:", "W: Failed to fetch", "Err:", "W:"):
        marked = [line for line in lines if line.startswith(mark)]
        if marked:
            return " ".join(marked[-1].split())
    return lines[-1] if lines else f"nothing (exit status {update.returncode})"
