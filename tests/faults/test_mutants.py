"""Seeded faults: every mutant of `mutants.py` is noticed by the test that is named there.

A mutant lives in a copy of the checkout, where pytest runs that one test in a process of its own.
Noticed means that an assertion failed, or that the package itself raised one of its named errors; a
mutant that cannot even be imported or run proves nothing and is an error here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.faults.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("monox_kit", "cli", "tests", "pyproject.toml")
SAMPLED = [mutant for mutant in MUTANTS if mutant.is_sampled]
NOTICED = re.compile(
    r"(AssertionError|assert |Failed: (?!Timeout)|monox_kit\.errors\.\w+: )"
    # Hypothesis found more than one kind of failure, or tells how to see one again.
    r"|.*ExceptionGroup: Hypothesis found \d+ distinct failures"
)


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest came to.

    Attributes:
        num_passed: tests.
        failures: the message of every test that failed.
        errors: of every test that could not be run.
        log: what pytest said.
    """

    num_passed: int
    failures: list[str]
    errors: list[str]
    log: str


class Checkout:
    """A copy of the checkout to put faults into."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for part in PARTS:
            if (ROOT / part).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / part, root / part, ignore=ignored)
            else:
                shutil.copy(ROOT / part, root / part)

    def run(self, tests: Sequence[str]) -> Outcome:
        """Run these tests and no others."""
        report = self.root / "report.xml"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"--rootdir={self.root}", f"--basetemp={self.root / 'tmp'}"]
        command += [f"--junitxml={report}", *tests]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.root), str(self.root / "cli")]),
            # A file changed within a second, at equal length, would be taken from its old cache.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        finished = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        log = finished.stdout + finished.stderr
        assert report.exists(), log
        cases = list(ElementTree.parse(report).iter("testcase"))
        failures = [each.get("message", "") for case in cases for each in case.findall("failure")]
        errors = [each.get("message", "") for case in cases for each in case.findall("error")]
        return Outcome(sum(not len(case) for case in cases), failures, errors, log)

    def run_mutated(self, mutant: Mutant) -> Outcome:
        """The same for the mutant's test, with its fault in place."""
        path = self.root / mutant.file
        source = path.read_text(encoding="utf-8")
        assert source.count(mutant.old) == 1
        try:
            path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
            return self.run([mutant.test])
        finally:
            path.write_text(source, encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("mutants") / "checkout")


def expect_noticed(checkout: Checkout, mutants: Sequence[Mutant]) -> None:
    """The tests pass, and each fails under its mutants."""
    sound = checkout.run(sorted({mutant.test for mutant in mutants}))
    assert (sound.failures, sound.errors) == ([], []), sound.log
    assert sound.num_passed >= len({mutant.test for mutant in mutants})
    for mutant in mutants:
        found = checkout.run_mutated(mutant)
        assert found.failures, f"{mutant.name}: not noticed by {mutant.test}\n{found.log}"
        assert not found.errors, f"{mutant.name}: its tests cannot be run\n{found.log}"
        wrong = [message for message in found.failures if not NOTICED.match(message)]
        assert not wrong, f"{mutant.name}: failed for another reason: {wrong}\n{found.log}"


def test_every_mutant_is_a_change_of_the_code_as_it_is() -> None:
    """A mutant whose text is gone would say nothing; adapt it to the code that came instead."""
    assert len(MUTANTS) >= 20
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        source = (ROOT / mutant.file).read_text(encoding="utf-8")
        assert source.count(mutant.old) == 1, f"{mutant.name}: {mutant.file} holds no such text"
        compile(source.replace(mutant.old, mutant.new), mutant.file, "exec")
        file, _, test = mutant.test.partition("::")
        name = test.partition("[")[0]
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), mutant.test


def test_some_mutants_are_noticed(checkout: Checkout) -> None:
    expect_noticed(checkout, SAMPLED)


@pytest.mark.complete
@pytest.mark.timeout(600)
@pytest.mark.parametrize("test", sorted({mutant.test for mutant in MUTANTS}))
def test_every_mutant_is_noticed(checkout: Checkout, test: str) -> None:
    expect_noticed(checkout, [mutant for mutant in MUTANTS if mutant.test == test])
