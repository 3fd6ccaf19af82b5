"""The oldest versions that our metadata allows, with the reason of each that guards users."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "onnxruntime": ("1.24.1", "external data from any file; memory at a given address"),
    "onnxruntime-gpu": ("1.24.1", "as onnxruntime"),
    "onnxruntime-openvino": ("1.24.1", "as onnxruntime"),
    "transformers": ("5.10", "CVE-2026-9856, CVE-2026-4372, vocab_file copied into the output"),
    "requests": ("2.33", "its advisories"),
    "torch": ("2.10", "torch.load"),
    "onnx": ("1.21", "path traversal in external data"),
    "ray": ("2.55", "CVE-2025-62593, CVE-2026-27482, CVE-2026-32981"),
}


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for lines in lists for line in lines]


@pytest.mark.parametrize("name", FLOORS)
def test_nothing_older_than_the_floor_is_allowed(name: str) -> None:
    floor, reason = FLOORS[name]
    wanted = [item.specifier for item in requirements() if item.name == name]
    assert wanted, f"{name} is not asked for any more: drop its floor ({reason})"
    for specifier in wanted:
        bounds = [Version(part.version) for part in specifier if part.operator in {">=", "=="}]
        assert bounds and max(bounds) >= Version(floor), reason


def test_the_page_lists_the_same_floors() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| ([\w, ()-]+) \| ([\d.]+) \|", page, re.MULTILINE)
    listed = {
        name.removesuffix(" (extra)"): floor for names, floor in rows for name in names.split(", ")
    }
    assert listed == {name: floor for name, (floor, _) in FLOORS.items()}
