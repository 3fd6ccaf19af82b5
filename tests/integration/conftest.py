"""Fixtures of the integration tests."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monox_kit.exporting import build
from monox_kit.exporting.config import GraphForm
from tests.integration.older_environment import make_environment


@pytest.fixture(scope="session")
def older_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with transformers 4.57.6 and what wants that."""
    assert request.config.cache is not None
    return make_environment(request.config.cache.mkdir("transformers-4.57.6"))


@pytest.fixture(scope="session", autouse=True)
def graphs_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let PyTorch's exporters write each model's graph once; equal models get a copy of the files.

    They take most of an export's time, and the same few tiny models are exported again and again.
    """
    folder, write_form = tmp_path_factory.mktemp("graphs"), build.write_form

    def kept(model: Any, into: Path, form: GraphForm, *, token_types: bool) -> None:
        attention = model.config._attn_implementation
        digest = hashlib.sha256(repr((form, token_types, attention)).encode())
        digest.update(model.config.to_json_string(use_diff=False).encode())
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
        graph = folder / digest.hexdigest()
        if not graph.is_dir():
            write_form(model, into, form, token_types=token_types)
            shutil.copytree(into, graph)  # what fails is not kept
        shutil.copytree(graph, into, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "write_form", kept)
        yield
