"""What a store is called: a path of a file system, or a URL."""

from __future__ import annotations

import os
import re
from pathlib import Path

from monox_kit.errors import ConfigError

# `Path` makes one slash of two. A drive's letter is no scheme.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.:-]+)://?(?P<rest>.*)", re.DOTALL)


def store_url(path: Path | str) -> str | None:
    """The URL that a store's path stands for; None for one of a file system."""
    url = _URL.fullmatch(str(path))
    if url is None or os.path.lexists(Path(path).parts[0]):
        return None
    return f"{url['scheme']}://{url['rest'].rstrip('/')}"


def require_local(path: Path | str) -> None:
    """Check that a store's path is one of a file system, and no URL.

    Raises:
        ConfigError: it is a URL. Objects can be neither mapped nor locked nor renamed.
    """
    url = store_url(path)
    if url is not None:
        raise ConfigError(
            f"{url}: expected a store's folder, found a URL. Copy a store that was labelled to a "
            f"URL into a folder first: `monoxkit store fetch {url} --out DIR`."
        )
