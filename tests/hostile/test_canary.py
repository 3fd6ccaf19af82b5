"""The canaries notice what they are there for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from tests.hostile.canary import SENTINEL, Canary


@pytest.fixture
def bird(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "bird")


def test_nothing_happened(bird: Canary, tmp_path: Path) -> None:
    (tmp_path / "output").write_text("harmless")
    bird.require_untouched(tmp_path / "output")


@pytest.mark.parametrize("how", ["read", "write", "delete", "link", "run"])
def test_what_happened_is_noticed(how: str, bird: Canary, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bird.secret)
    match how:
        case "read":
            bird.secret.read_bytes()
        case "write":
            with bird.secret.open("a") as stream:
                stream.write("more")
        case "delete":
            bird.secret.unlink()
        case "link":
            os.close(os.open(link, os.O_RDONLY))
        case "run":
            pickle.loads(bird.pickled())
    assert bird.touched()


def test_a_leaked_secret_is_noticed(bird: Canary, tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "card.md").write_text(f"vocabulary: {SENTINEL}")
    with pytest.raises(AssertionError):
        bird.require_untouched(tmp_path / "output")
