"""A tiny bundle, and the server around it: in this process, or as a user starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

from starlette.testclient import TestClient

from monox_kit.exporting.config import ExportConfig
from monox_kit.exporting.run import export_model
from monox_kit.serving.app import build_app
from monox_kit.serving.config import ServeConfig
from monox_kit.serving.site import Site
from tests.tiny_models import WORDS, balanced_classifier, labelled_rows

MAX_LENGTH = 24
NAME = "tiny"


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 2 to 12 words."""
    return [row["text"] for row in labelled_rows(count, seed)]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An fp32 bundle with golden texts."""
    return exported(tmp_path_factory.mktemp("served"), seed=3)


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the same classes, with other weights."""
    return exported(tmp_path_factory.mktemp("other"), seed=4)


def exported(folder: Path, seed: int) -> Path:
    model = balanced_classifier(folder / "model", labelled_rows(60), seed)
    config = ExportConfig(
        model=str(model), precision="fp32", max_length=MAX_LENGTH, min_agreement=0.5
    )
    export_model(config, folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def own_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


class Notes:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def served(bundle: Path, notes: Notes) -> Callable[..., Any]:
    """Opens a server in this process: `with served(max_rows=2) as (client, site)`."""

    @contextmanager
    def open_server(folder: Path = bundle, **settings: Any) -> Iterator[tuple[TestClient, Site]]:
        config = ServeConfig(bundles=(f"{NAME}={folder}",), threads=1, **settings)
        site = Site(config, notes)  # type: ignore[arg-type]
        with TestClient(build_app(site), raise_server_exceptions=False) as client:
            yield client, site

    return open_server


class Process:
    """`monoxkit serve` as a user starts it.

    Attributes:
        url: that it listens on.
    """

    def __init__(self, *words: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "monoxkit_cli", "serve", *words, "--port", "0", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.url = ""
        self.told: list[str] = []
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self.told.append(line)
            if found := re.search(r"serving .* at (http://\S+)", line):
                self.url = found[1]
                return

    def send(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def wait_for_note(self, part: str) -> str:
        """The next line on stderr that holds a text."""
        assert self._child.stderr is not None
        for line in self._child.stderr:
            if part in line:
                return line
        raise AssertionError(f"the server ended without saying {part!r}")

    def end(self) -> tuple[int, Any]:
        """The exit status, and the JSON that it wrote."""
        out, err = self._child.communicate(timeout=60)
        self.told.append(err)
        return self._child.returncode, json.loads(out) if out else None

    def kill(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()


@pytest.fixture
def started() -> Iterator[Callable[..., Process]]:
    """Starts servers as processes, which end with the test."""
    processes: list[Process] = []

    def start(*words: str) -> Process:
        processes.append(Process(*words))
        return processes[-1]

    yield start
    for each in processes:
        each.kill()


def long_text(count: int) -> str:
    """A text of so many words."""
    return " ".join(WORDS[index % 18] for index in range(count))
