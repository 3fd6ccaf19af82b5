"""The default corpus from Debian itself, through this machine's apt."""

import json
import re
import shutil
from pathlib import Path

import pytest

from monox_kit.digest import digest_file
from monox_kit.tasks.debian.prepare import LANGUAGES, TOPICS, DebianConfig, prepare_debian
from monox_kit.tasks.fields import normalized

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt-get on this machine"),
]

SCRIPTS = {
    "ja": "[\u3041-\u30ff\u4e00-\u9fff]",
    "ko": "[\uac00-\ud7a3]",
    "ru": "[а-я]",
    "uk": "[а-яії]",
}


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_default_corpus_is_whole_disjoint_and_in_its_languages(tmp_path: Path) -> None:
    machine = Path("/var/lib/apt/lists")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in machine.glob("*"))
    summary = prepare_debian(DebianConfig(), tmp_path / "out")
    assert sorted((path.name, path.stat().st_mtime_ns) for path in machine.glob("*")) == before

    out = tmp_path / "out"
    training = [*rows(out, "labelled.jsonl"), *rows(out, "unlabelled.jsonl")]
    dev = rows(out, "dev.jsonl")
    test = {tag: rows(out, f"test.{tag}.jsonl") for tag in ("en", *LANGUAGES)}
    assert (len(training), len(dev), len(LANGUAGES)) == (5000, 500, 12)
    assert all(len(found) >= 150 for found in test.values()), summary.rows
    assert {row["label"] for row in rows(out, "labelled.jsonl")} == set(TOPICS)

    held_out = [*dev, *(row for found in test.values() for row in found)]
    assert not {row["id"] for row in training} & {row["id"] for row in held_out}
    assert not {row["id"] for row in dev} & {row["id"] for row in held_out[len(dev) :]}
    seen = {normalized(row["text"]) for row in training}
    assert len(seen) == 5000
    assert not seen & {normalized(row["text"]) for row in held_out}

    for tag, script in SCRIPTS.items():
        own = [row for row in test[tag] if len(re.findall(script, row["text"])) >= 10]
        assert len(own) == len(test[tag]), tag
    english = {row["id"]: normalized(row["text"]) for row in test["en"]}
    for tag in LANGUAGES:
        assert not any(english.get(row["id"]) == normalized(row["text"]) for row in test[tag])

    provenance = json.loads((out / "provenance.json").read_text())
    for name, record in provenance["files"].items():
        assert digest_file(out / name) == record["sha256"]
    assert set(provenance["lists"]) >= {"Packages", "Translation-en", "Translation-pt_BR"}
    assert prepare_debian(DebianConfig(), out).reused
