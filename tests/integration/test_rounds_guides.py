"""docs/translations.md and docs/rounds.md, command by command, on tiny models."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from monoxkit_cli.app import main
from tests.tiny_models import bert_classifier, bert_encoder, labelled_rows, write_jsonl

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str = "") -> list[str]:
    """A page's blocks of a language, none for commands."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [content for kind, content in found if kind == language]


def translated(rows: list[dict[str, str]], lang: str) -> list[dict[str, str]]:
    return [{"id": row["id"], "text": f"{lang} {row['text']}"} for row in rows]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the pages name, those of a page's own rows before others."""
    english, german = (
        [json.loads(line) for line in block.splitlines()]
        for block in blocks("translations", "json")
    )
    assert [row["id"] for row in english] == [row["id"] for row in german]
    rows = [{key: row[key] for key in ("id", "text", "lang")} for row in labelled_rows(24, seed=1)]
    write_jsonl(tmp_path / "rows.jsonl", english + rows)
    write_jsonl(tmp_path / "texts.de.jsonl", german + translated(rows[:12], "de"))
    plain = write_jsonl(tmp_path / "texts.fr.jsonl", translated(rows[6:18], "fr"))
    import pyarrow as pa

    with pa.output_stream(f"{plain}.zst", compression="zstd") as stream:
        stream.write(plain.read_bytes())
    plain.unlink()
    write_jsonl(tmp_path / "dev.jsonl", labelled_rows(9, seed=2))
    for tag in ("de", "fr", "ja"):
        test = [{**row, "lang": tag} for row in labelled_rows(9, seed=3)]
        write_jsonl(tmp_path / f"test.{tag}.jsonl", test)
    for tag in ("de", "fr"):
        new = [{**row, "id": f"n{row['id']}"} for row in labelled_rows(60, seed=4)]
        write_jsonl(tmp_path / f"new.{tag}.jsonl", translated(new, tag))
    bert_encoder(tmp_path / "encoder")
    bert_classifier(tmp_path / "teacher")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(page: str, capsys: pytest.CaptureFixture[str]) -> list[tuple[list[str], Any]]:
    """Every command of a page with its result, run in its order."""
    done = []
    for line in "".join(blocks(page)).splitlines():
        words = shlex.split(line)[1:]
        if words[0] == "train-student":
            words += ["--max-steps", "4", "--max-length", "16", "--batch-size", "8"]
        tests = [str(path) for path in sorted(Path().glob("test.*.jsonl"))]
        words = [each for one in words for each in (tests if one == "test.*.jsonl" else [one])]
        capsys.readouterr()
        assert main([*words, "--json"]) == 0, line
        done.append((words, json.loads(capsys.readouterr().out)))
    return done


def test_translations(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = results("translations", capsys)
    assert [words[0] for words, _ in done] == ["label", "train-student", "evaluate"]
    counts = done[1][1]["counts"]
    assert counts["translated_rows"] == 20 and counts["rows_with_several_translations"] == 6
    table = (DOCS / "translations.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    assert told == {name for name in counts if "translat" in name or "other_texts" in name}
    assert done[2][1]["seen_languages"] == ["de", "fr"]


def test_rounds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = results("rounds", capsys)
    commands = [" ".join(words[:2]) for words, _ in done]
    assert commands.count("store select") == 3
    stats = next(found for words, found in done if words[:2] == ["store", "stats"])
    assert {one["language"]: one["num_rows"] for one in stats["languages"]} == {"de": 60, "fr": 60}
    chosen, tasks, table = (found for words, found in done if words[:2] == ["store", "select"])
    assert (chosen["form"], chosen["order"]) == ("store", "highest")
    assert (tasks["order"], table["order"]) == ("lowest", "lowest")
    assert all(count <= 20 for one in chosen["languages"] for count in one["labels"].values())
    second = done[5][1]
    assert second["counts"]["soft_rows"] == 26 + chosen["num_rows"]
    card = (folder / "student-2" / "README.md").read_text(encoding="utf-8")
    assert "Text in de, fr was learned from" in card
    assert len(json.loads((folder / "tasks.json").read_text())) == tasks["num_rows"]
    labels_come_back(folder, capsys)


def labels_come_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table that was filled in, and Label Studio's JSON-MIN, are labelled files like others."""
    lines = (folder / "rows.csv").read_text(encoding="utf-8").splitlines()
    filled = [lines[0], *(f"{line}games" for line in lines[1:])]
    (folder / "filled.csv").write_text("\n".join(filled) + "\n", encoding="utf-8")
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    # Source of the form: Label Studio's export JSON_MIN, data and choices side by side.
    minimal = [
        {
            **task["data"],
            "id": at,
            "label": task["predictions"][0]["result"][0]["value"]["choices"][0],
        }
        for at, task in enumerate(tasks, 1)
    ]
    (folder / "minimal.json").write_text(json.dumps(minimal), encoding="utf-8")
    for name, column in (("filled.csv", "id"), ("minimal.json", "document_id")):
        capsys.readouterr()
        words = ["evaluate", "student", "--test", name, "--id-column", column, "--json"]
        assert main(words) == 0
        report = json.loads(capsys.readouterr().out)
        assert set(report["languages"]) == {"de", "fr"}
