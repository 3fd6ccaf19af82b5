"""Every hostile test has canaries beside it, and little memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.canary import Canary

# What one input may take. The folder's own libraries take most of its gigabyte before any test.
_MAX_GROWTH_KB = 300 << 10


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """Canaries that must stand untouched when the test ends."""
    canary = Canary(tmp_path / "outside")
    yield canary
    canary.require_untouched()
    canary.close()


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """The process's peak must not grow by much while a hostile input is refused."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _MAX_GROWTH_KB
