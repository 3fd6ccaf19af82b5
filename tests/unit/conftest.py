"""A service of objects, for the tests of stores at URLs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_store import DiskObjects, object_store


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[DiskObjects]]:
    """What answers at `objects://` and `memory://`."""
    with object_store() as service:
        yield service


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"objects://{tmp_path}/bucket/store"


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    return tmp_path / "bucket" / "store"
