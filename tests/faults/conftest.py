"""What several tests of faults start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.runs import RunServer
from tests.faults.states import SIX_SHARDS
from tests.store_samples import write_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store of six shards that nothing happened to."""
    return write_store(tmp_path_factory.mktemp("whole") / "s", SIX_SHARDS)


@pytest.fixture(scope="module")
def server() -> Iterator[RunServer]:
    """Runs that write six shards, each in a process of its own."""
    with RunServer("writing") as server:
        yield server
