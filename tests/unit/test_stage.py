"""An output is absent, finished by the same run, of another run, or not ours: told once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monox_kit.errors import ConfigError, OtherRun, StorageError
from monox_kit.stage import RUN_FILE, holds_record, is_finished, read_record, work_folder

RUN = {"command": "label", "seed": 1, "languages": ("de", "fr")}
KEPT = json.loads(json.dumps(RUN))  # a tuple reads as a list


@pytest.mark.parametrize("found", [None, KEPT])
def test_a_free_output_is_not_finished_whatever_its_record_says(tmp_path: Path, found: Any) -> None:
    assert not is_finished(tmp_path / "absent", found, RUN)
    assert not is_finished(tmp_path, found, RUN)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_output_is_of_the_same_run_of_another_or_not_ours(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
    (out / "x" if kind == "folder" else out).write_text("x")
    assert is_finished(out, KEPT, RUN)
    with pytest.raises(OtherRun, match=r"/out: .*`seed` .*1 then, 2 now"):
        is_finished(out, KEPT, {**RUN, "seed": 2})
    with pytest.raises(OtherRun, match=r"/out: .*command .*'export' then, 'label' now"):
        is_finished(out, {**KEPT, "command": "export", "seed": 3}, RUN)
    several = {"labels": "a" * 64, "seed": 2, **{f"t{n}": n for n in range(9)}}
    with pytest.raises(OtherRun) as refused:
        is_finished(out, KEPT, {**RUN, **several})
    told = str(refused.value)
    assert f"the label set (its digest) differs: none then, {'a' * 12} now." in told
    assert "`seed` (1 then, 2 now)" in told and "`t6` (none then, 6 now)" in told
    assert "`t7`" not in told and "2 more" in told
    assert "a" * 13 not in told and "`languages`" not in told
    with pytest.raises(OtherRun) as refused:
        is_finished(out, {**KEPT, "command": "export", "seed": 3}, RUN)
    assert "`seed`" not in str(refused.value), "another command's settings say nothing"
    for foreign in (None, "label", [RUN]):
        with pytest.raises(ConfigError, match="/out: ") as other:
            is_finished(out, foreign, RUN)
        assert not isinstance(other.value, OtherRun)  # the demo would remove it


def test_a_run_goes_on_in_its_own_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "parts"
    assert work_folder(folder, RUN) == folder
    assert read_record(folder / RUN_FILE) == KEPT
    (folder / "part-1").write_text("done")
    (folder / ".tmp-part-2-abcdefgh").write_text("a writer at work")
    work_folder(folder, RUN)
    with pytest.raises(OtherRun, match="`seed`"):
        work_folder(folder, {**RUN, "seed": 2})
    assert {path.name for path in folder.iterdir()} == {
        RUN_FILE,
        "part-1",
        ".tmp-part-2-abcdefgh",
    }


def test_a_kill_before_the_record_leaves_a_folder_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".tmp-run.json-abcdefgh").write_text("{")
    assert not holds_record(tmp_path, RUN_FILE)
    work_folder(tmp_path, RUN)
    assert [path.name for path in tmp_path.iterdir()] == [RUN_FILE]
    assert holds_record(tmp_path, RUN_FILE)


def test_a_folder_of_other_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for take in (lambda: work_folder(tmp_path, RUN), lambda: holds_record(tmp_path, RUN_FILE)):
        with pytest.raises(ConfigError, match=r"thesis\.tex"):
            take()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"3"])
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RUN_FILE).write_bytes(content)
    with pytest.raises(StorageError, match=r"/run\.json: "):
        work_folder(tmp_path, RUN)
