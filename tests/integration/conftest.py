"""Fixtures of the integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.older_environment import make_environment


@pytest.fixture(scope="session")
def older_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with transformers 4.57.6 and what wants that."""
    assert request.config.cache is not None
    return make_environment(request.config.cache.mkdir("transformers-4.57.6"))
