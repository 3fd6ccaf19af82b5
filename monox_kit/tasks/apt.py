"""apt under a configuration of our own: a Debian release's lists, and packages as files.

apt does the work that it is good at (mirrors, proxies, signatures); the machine's own lists, cache
and configuration are read at most and never changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monox_kit.durable import disk_errors, make_folder, write_file
from monox_kit.errors import CorpusError

COMPONENT = "main"
_ETC = Path("/etc/apt")
# Fetching takes 6 s on a fast line; a slow one still gets this long.
_FETCH_TIMEOUT_S = 900.0
_QUERY_TIMEOUT_S = 60.0
_PACKAGE_SUFFIX = ".deb"


@dataclass(frozen=True, slots=True)
class Index:
    """What `apt-get update` has left of one Debian release.

    Attributes:
        codename: the release's.
        release: what the release file says of itself (codename, suite, version, date ...).
        release_file: that file.
        packages: the `Packages` index of the `main` component.
        translations: language as Debian writes it to where its `Translation` list should lie.
        last_line: the most telling line of what apt said, for messages.
    """

    codename: str
    release: Mapping[str, str]
    release_file: Path
    packages: Path
    translations: Mapping[str, Path]
    last_line: str


@dataclass(frozen=True, slots=True)
class Apt:
    """apt-get under a configuration of our own.

    Attributes:
        command: which of our commands calls it, for messages.
        advice: what to do without apt, for messages.
        program: where it is.
        root: the folder that all it writes lies in.
        environment: with `APT_CONFIG`.
    """

    command: str
    advice: str
    program: str
    root: Path
    environment: Mapping[str, str]

    def update(self) -> Index:
        """Fetch the lists of this machine's Debian release.

        Raises:
            CorpusError: apt failed, or the machine has no Debian package source.
        """
        # Without its package cache, which only installing needs, `update` takes half the time.
        update = self._run(["update", "-o", "pkgCacheFile::Generate=false"], _FETCH_TIMEOUT_S)
        fields = ("FILENAME", "ORIGIN", "LABEL", "CODENAME", "COMPONENT", "CREATED_BY", "LANGUAGE")
        layout = "|".join(f"$({field})" for field in fields)
        targets = self._run(["indextargets", "--format", layout], _QUERY_TIMEOUT_S)
        rows = [dict(zip(fields, line.split("|"))) for line in targets.stdout.splitlines()]
        # A machine may have other vendors' sources, and Debian's own updates and security suites,
        # whose code names carry a dash; the release itself is the one with the translations.
        debian = [
            row
            for row in rows
            if (row["ORIGIN"], row["LABEL"], row["COMPONENT"]) == ("Debian", "Debian", COMPONENT)
            and "-" not in row["CODENAME"]
        ]
        packages = [row for row in debian if row["CREATED_BY"] == "Packages"]
        if not packages:
            others = sorted({row["ORIGIN"] for row in rows} - {"Debian"})
            raise CorpusError(
                f"{self.command}: expected apt to fetch a Debian release's {COMPONENT} lists, "
                f"found {'only lists of ' + ', '.join(others) if others else 'none'}; apt says: "
                f"{_last_line(update)!r}. Check the network and apt's sources. {self.advice}"
            )
        codename, path = packages[0]["CODENAME"], Path(packages[0]["FILENAME"])
        release_file = self._release_file(path)
        return Index(
            codename=codename,
            release=_release_fields(release_file),
            release_file=release_file,
            packages=path,
            translations={
                row["LANGUAGE"]: Path(row["FILENAME"])
                for row in debian
                if row["CREATED_BY"] == "Translations" and row["CODENAME"] == codename
            },
            last_line=_last_line(update),
        )

    def download(self, names: Sequence[str]) -> dict[str, Path]:
        """Fetch packages as files, whose digests apt compares with its index; call `update` before.

        Args:
            names: of packages.

        Returns:
            The file of each, by the package's name.

        Raises:
            CorpusError: apt failed.
        """
        folder = make_folder(self.root / "packages")
        # As root, apt downloads as the user _apt, who must be able to write here.
        folder.chmod(0o777)
        fetched = self._run(["download", *names], _FETCH_TIMEOUT_S, folder)
        found = {path.name.partition("_")[0]: path for path in folder.glob(f"*{_PACKAGE_SUFFIX}")}
        absent = [name for name in names if name not in found]
        if absent or fetched.returncode:
            raise CorpusError(
                f"{self.command}: expected apt to fetch {', '.join(absent or names)}, found "
                f"{'no such file' if absent else f'exit status {fetched.returncode}'}; apt says: "
                f"{_last_line(fetched)!r}. Check the network and run again. {self.advice}"
            )
        return {name: found[name] for name in names}

    def _run(
        self, arguments: Sequence[str], timeout_s: float, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run apt to its end; only a command that cannot run or does not end is an error here."""
        try:
            return subprocess.run(
                [self.program, *arguments],
                env=self.environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CorpusError(
                f"{self.command}: expected `{self.program} {arguments[0]}` to end within "
                f"{timeout_s:.0f} s, found it still running. Check the network and run again. "
                f"{self.advice}"
            ) from None
        except OSError as error:
            raise CorpusError(
                f"{self.command}: expected to run {self.program}, found: {error}. {self.advice}"
            ) from error

    def _release_file(self, index: Path) -> Path:
        """The signed release file that belongs to a `Packages` list of apt's lists folder."""
        prefix = index.name.split(f"_{COMPONENT}_")[0]
        for name in (f"{prefix}_InRelease", f"{prefix}_Release"):
            if (index.parent / name).is_file():
                return index.parent / name
        raise CorpusError(
            f"{self.command}: expected {prefix}_InRelease beside apt's lists, found none. "
            f"{self.advice}"
        )


@contextlib.contextmanager
def private_apt(command: str, advice: str, *, languages: Sequence[str] = ()) -> Iterator[Apt]:
    """apt-get in a temporary folder, which is removed when the block ends.

    Args:
        command: which of our commands calls it, for messages.
        advice: what to do without apt, for messages.
        languages: tags as Debian writes them, whose descriptions `update` fetches.

    Raises:
        CorpusError: there is no apt.
    """
    program = shutil.which("apt-get")
    if program is None:
        raise CorpusError(f"{command}: expected apt-get on this machine, found none. {advice}")
    with disk_errors(tempfile.gettempdir()):
        temporary = tempfile.TemporaryDirectory(prefix="monoxkit-apt-")
    with temporary as name:
        root = Path(name)
        # As root, apt downloads as the user _apt, who must be able to walk in.
        root.chmod(0o755)
        config = _configured(root, languages or ("none",))
        environment = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(config)}
        yield Apt(command, advice, program, root, environment)


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


def release_name(provenance: Mapping[str, Any]) -> str:
    """The release that a corpus's provenance names, by its name and version."""
    release = provenance["release"]
    return f"{release.get('codename', '?')} {release.get('version', '')}".strip()


def _release_fields(release_file: Path) -> dict[str, str]:
    """What the release file says of itself, in lower-case keys."""
    wanted = ("Origin", "Label", "Suite", "Version", "Codename", "Date")
    fields: dict[str, str] = {}
    with release_file.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _, value = line.partition(":")
            if name in wanted:
                fields.setdefault(name.lower(), value.strip())
    return fields | {"component": COMPONENT}


def _last_line(update: subprocess.CompletedProcess[str]) -> str:
    """apt's last error, else the last failed download with its reason, else its last line."""
    lines = [line.strip() for line in (update.stdout + update.stderr).splitlines() if line.strip()]
    for mark in ("E:", "W: Failed to fetch", "Err:", "W:"):
        marked = [line for line in lines if line.startswith(mark)]
        if marked:
            return " ".join(marked[-1].split())
    return lines[-1] if lines else f"nothing (exit status {update.returncode})"
