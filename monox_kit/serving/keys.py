"""Keys of clients: a file of them, compared in constant time, never shown."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from monox_kit.errors import ConfigError
from monox_kit.serving.contract import Kind, Refused

_MOST_BYTES = 1 << 20
# A key that can be guessed is none: 16 characters of hexadecimal are 64 bits.
_LEAST_CHARACTERS = 16
_SCHEME = "bearer"


class Keys:
    """The keys of a file; digests alone stay in memory.

    Args:
        path: a text file, one key a line; empty lines and those that begin with # are passed over.

    Raises:
        ConfigError: the file cannot be read or has no key that is long enough.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests = _read(path)

    def __len__(self) -> int:
        return len(self._digests)

    def reload(self) -> None:
        """Read the file again; the keys stay as they are where it cannot be used.

        Raises:
            ConfigError: as above.
        """
        self._digests = _read(self._path)

    def require(self, headers: Mapping[str, str]) -> None:
        """Check that a request has one of the keys, as `Authorization: Bearer KEY`.

        Args:
            headers: by lower-case name.

        Raises:
            Refused: it has none.
        """
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Of equal length whatever was sent, and all of them are compared.
        digest = _digest(given.strip())
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        if not found or scheme.lower() != _SCHEME:
            raise Refused(
                Kind.UNAUTHORIZED,
                "This server asks for a key. Send the header Authorization: Bearer KEY.",
            )


def _digest(key: str) -> bytes:
    # Headers are Latin-1 (RFC 9110, section 5.5).
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        with path.open("rb") as stream:
            lines = stream.read(_MOST_BYTES).decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "characters beyond ASCII"
        raise ConfigError(
            f"`keys` {path}: expected a text file with a key on each line, found: {reason}. "
            "Correct the file."
        ) from error
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"`keys` {path}: the file has no key. Write one on a line of its own.")
    for number, key in enumerate(keys, 1):
        if len(key) < _LEAST_CHARACTERS or not key.isprintable() or " " in key:
            raise ConfigError(
                f"`keys` {path}: key {number} of {len(keys)} has {len(key)} characters or a space "
                f"among them, expected at least {_LEAST_CHARACTERS} and none. Make one with: "
                "openssl rand -hex 32"
            )
    return tuple(dict.fromkeys(map(_digest, keys)))
