"""Damaged and hostile checkpoints: passed over or refused, by name; never used, never run."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from monox_kit.digest import digest_file
from monox_kit.errors import CheckpointError, ConfigError, NotFinite, StoreError
from monox_kit.store.record import DIGEST_KEY, encode_record
from monox_kit.training.checkpoint import Checkpoints
from tests.checkpoint_samples import FINGERPRINT, expect_equal, newest, parameters, state, write
from tests.notes import Notes

MODEL, OPTIMIZER, RANDOM = "model.safetensors", "optimizer.safetensors", "random.safetensors"
STATE = "state.json"
Act = Callable[[Path], Any]


# Damage


def lose(name: str) -> Act:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: bytes) -> Act:
    return lambda folder: (folder / name).write_bytes(content)


def flip(name: str, at: int) -> Act:
    def act(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[at] ^= 1
        (folder / name).write_bytes(content)

    return act


def cut(name: str, num_bytes: int) -> Act:
    return lambda folder: os.truncate(
        folder / name, max((folder / name).stat().st_size + num_bytes, 0)
    )


def swap(first: str, second: str) -> Act:
    def act(folder: Path) -> None:
        (folder / first).rename(folder / "aside")
        (folder / second).rename(folder / first)
        (folder / "aside").rename(folder / second)

    return act


def of_another_step(name: str) -> Act:
    return lambda folder: shutil.copy(folder.with_name("step-000004") / name, folder / name)


DAMAGE: dict[str, tuple[Act, str]] = {
    "no record": (lose(STATE), STATE),
    "no weights": (lose(MODEL), MODEL),
    "no moments": (lose(OPTIMIZER), OPTIMIZER),
    "no random states": (lose(RANDOM), RANDOM),
    "no best weights": (lose("best.safetensors"), "best"),
    "an empty record": (put(STATE, b""), STATE),
    "an empty file of weights": (put(MODEL, b""), MODEL),
    "zeros as record": (put(STATE, bytes(4096)), STATE),
    "a record cut short": (cut(STATE, -20), STATE),
    "weights cut short": (cut(MODEL, -1), MODEL),
    "moments cut short": (cut(OPTIMIZER, -8), OPTIMIZER),
    "weights with a byte more": (cut(MODEL, 1), MODEL),
    "a flipped bit in the weights": (flip(MODEL, -1), MODEL),
    "a flipped bit in the best weights": (flip("best.safetensors", -9), "best"),
    "a flipped bit in the moments": (flip(OPTIMIZER, -3), OPTIMIZER),
    "a flipped bit in the random states": (flip(RANDOM, -1), RANDOM),
    "a flipped bit in a header": (flip(MODEL, 12), MODEL),
    "a flipped bit in a header's length": (flip(MODEL, 0), MODEL),
    "a flipped bit in the record": (flip(STATE, 40), STATE),
    "a flipped bit in the record's digest": (flip(STATE, -10), STATE),
    "the record of another step": (of_another_step(STATE), STATE),
    "the weights of another step": (of_another_step(MODEL), MODEL),
    "the moments of another step": (of_another_step(OPTIMIZER), OPTIMIZER),
    "two files that changed places": (swap(MODEL, OPTIMIZER), MODEL),
    "a folder in a file's place": (
        lambda folder: ((folder / MODEL).unlink(), (folder / MODEL).mkdir()),
        MODEL,
    ),
    "another checkpoint's folder": (
        lambda folder: (
            shutil.rmtree(folder),
            shutil.copytree(folder.with_name("step-000004"), folder),
        ),
        STATE,
    ),
}


# Hostile content: the record vouches for it.


def reseal(folder: Path, **changes: Any) -> None:
    """Let the record vouch for the files as they are now."""
    record = json.loads((folder / STATE).read_bytes())
    del record[DIGEST_KEY]
    for path in folder.glob("*.safetensors"):
        record["files"][path.name] = {"bytes": path.stat().st_size, "digest": digest_file(path)}
    (folder / STATE).write_bytes(encode_record({**record, **changes}, folder))


class Evil:
    """Touches the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.remove, (str(self.canary),)


def evil(folder: Path) -> Evil:
    return Evil(folder.parent.parent / "canary")


def vouched(name: str, content: Callable[[Path], bytes]) -> Act:
    def act(folder: Path) -> None:
        (folder / name).write_bytes(content(folder))
        reseal(folder)

    return act


def torch_zip(folder: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"encoder.weight": evil(folder)}, stream)
    return stream.getvalue()


def object_array(folder: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([evil(folder)], dtype=object), allow_pickle=True)
    return stream.getvalue()


def zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../canary", "overwritten")
    return stream.getvalue()


def headed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def with_long_header(folder: Path) -> bytes:
    """The weights as they were, behind a header that is right and too long."""
    content = (folder / MODEL).read_bytes()
    stop = 8 + int.from_bytes(content[:8], "little")
    return headed(content[8:stop] + b" " * 9_000_000, content[stop:])


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Act:
    def act(folder: Path) -> None:
        values = {key: value.clone() for key, value in load_file(str(folder / name)).items()}
        change(values)
        save_file(values, str(folder / name))
        reseal(folder)

    return act


def link(name: str) -> Act:
    def act(folder: Path) -> None:
        outside = folder.parent.parent / name
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return act


ONE = torch.tensor(1.0)
ENTRY = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
HOSTILE: dict[str, tuple[Act, str]] = {
    "a pickle": (vouched(MODEL, lambda folder: pickle.dumps(evil(folder))), MODEL),
    "a torch zip": (vouched(MODEL, torch_zip), MODEL),
    "an object array": (vouched(OPTIMIZER, object_array), OPTIMIZER),
    "a zip that leaves its folder": (vouched(RANDOM, zipped), RANDOM),
    "a header of 2^60 bytes": (
        vouched(MODEL, lambda folder: struct.pack("<Q", 1 << 60) + b"{}"),
        MODEL,
    ),
    "a header of 9 MB": (vouched(MODEL, with_long_header), MODEL),
    "a deep header": (vouched(MODEL, lambda folder: headed(b"[" * 100_000)), MODEL),
    "a header with a key twice": (
        vouched(MODEL, lambda folder: headed(b'{"a":%s,"a":%s}' % (ENTRY, ENTRY), bytes(4))),
        MODEL,
    ),
    "tensors over one another": (
        vouched(MODEL, lambda folder: headed(b'{"a":%s,"b":%s}' % (ENTRY, ENTRY), bytes(4))),
        MODEL,
    ),
    "a shape of 2^62 values": (
        vouched(
            MODEL,
            lambda folder: headed(
                ENTRY.replace(b"[1]", b"[4611686018427387904]").join([b'{"a":', b"}"]), bytes(4)
            ),
        ),
        MODEL,
    ),
    "a record with a key twice": (
        lambda folder: (folder / STATE).write_bytes(
            (folder / STATE).read_bytes().replace(b'"step": 6,', b'"step": 6, "step": 6,', 1)
        ),
        STATE,
    ),
    "a record with NaN": (
        lambda folder: (folder / STATE).write_bytes(
            (folder / STATE).read_bytes().replace(b"1.25", b"NaN", 1)
        ),
        STATE,
    ),
    "a record with another kind of step": (lambda folder: reseal(folder, step="6"), STATE),
    "a record without a position": (lambda folder: reseal(folder, position={}), STATE),
    "a record with a position before the first": (
        lambda folder: reseal(folder, position={"epoch": 0, "window": -1, "batch": 0}),
        STATE,
    ),
    "a record with another kind of position": (
        lambda folder: reseal(folder, position={"epoch": 0, "window": True, "batch": 0}),
        STATE,
    ),
    "a record with text for results": (lambda folder: reseal(folder, history=["x"]), STATE),
    "a record with a result of no step": (
        lambda folder: reseal(folder, history=[{"accuracy": 0.5, "loss": 1.25}]),
        STATE,
    ),
    "a record with a best result of no step": (
        lambda folder: reseal(folder, best_result={"accuracy": 0.5, "loss": 1.25}),
        STATE,
    ),
    "a record of files elsewhere": (
        lambda folder: reseal(folder, files={"../../canary": {"bytes": 1, "digest": "0"}}),
        STATE,
    ),
    "weights through a link": (link(MODEL), MODEL),
    "a record through a link": (link(STATE), STATE),
    "a pipe": (lambda folder: ((folder / MODEL).unlink(), os.mkfifo(folder / MODEL)), MODEL),
    "weights of another shape": (
        tensors(MODEL, lambda values: values.update({"classifier.bias": torch.zeros(4)})),
        MODEL,
    ),
    "a weight too many": (tensors(MODEL, lambda values: values.update(x=torch.zeros(4))), MODEL),
    "a weight too few": (tensors(MODEL, lambda values: values.pop("classifier.bias")), MODEL),
    "weights of whole numbers": (
        tensors(
            MODEL,
            lambda values: values.update({"classifier.bias": torch.zeros(3, dtype=torch.uint8)}),
        ),
        MODEL,
    ),
    "the moments of a parameter that is none": (
        tensors(OPTIMIZER, lambda values: values.update({"x/exp_avg": torch.zeros(3)})),
        OPTIMIZER,
    ),
    "no moments at all": (tensors(OPTIMIZER, lambda values: values.clear()), OPTIMIZER),
    "a parameter without one of its moments": (
        tensors(OPTIMIZER, lambda values: values.pop("encoder.weight/exp_avg_sq")),
        OPTIMIZER,
    ),
    "a moment of another shape": (
        tensors(OPTIMIZER, lambda values: values.update({"encoder.weight/exp_avg": ONE})),
        OPTIMIZER,
    ),
    "a random state of another length": (
        tensors(RANDOM, lambda values: values.update({"0/cpu": torch.zeros(16).byte()})),
        RANDOM,
    ),
    "a random state of another device": (
        tensors(RANDOM, lambda values: values.update({"0/tpu": values["0/cpu"].clone()})),
        RANDOM,
    ),
    "no random state of the first process": (
        tensors(RANDOM, lambda values: values.pop("0/cpu")),
        RANDOM,
    ),
    "NaN in the weights": (
        tensors(MODEL, lambda values: values["encoder.weight"].fill_(float("nan"))),
        MODEL,
    ),
    "an infinite moment": (
        tensors(OPTIMIZER, lambda values: values["encoder.weight/exp_avg"].fill_(float("-inf"))),
        OPTIMIZER,
    ),
}
KINDS = {**DAMAGE, **HOSTILE}


def write_bad(folder: Path, kind: str) -> str:
    """Two checkpoints in `c`, the newer one bad, and a canary; where the fault is to be named."""
    act, place = KINDS[kind]
    (folder / "canary").write_text("alive")
    write(folder / "c", 4, 6)
    act(folder / "c" / "step-000006")
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_checkpoint_is_passed_over_by_name_for_the_one_before_it(
    tmp_path: Path, kind: str
) -> None:
    place = write_bad(tmp_path, kind)
    progress = Notes()
    checkpoints = Checkpoints(tmp_path / "c", FINGERPRINT)
    expect_equal(checkpoints.load_newest(parameters(), progress), 4)
    (note,) = progress.notes
    assert f"step-000006/{place}" in note and "Resuming from step-000004" in note
    assert (tmp_path / "canary").read_text() == "alive"
    # The run goes on, and its own checkpoint takes the bad one's place.
    checkpoints.save(state(6))
    expect_equal(newest(tmp_path / "c"), 6)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "step-000004",
        "step-000006",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_where_all_are_bad_the_newest_is_named_and_nothing_starts_over(
    tmp_path: Path, kind: str
) -> None:
    place = write_bad(tmp_path, kind)
    shutil.rmtree(tmp_path / "c" / "step-000004")
    with pytest.raises(CheckpointError, match=rf"step-000006/{place}.*/c "):
        newest(tmp_path / "c")
    assert (tmp_path / "canary").read_text() == "alive"


@pytest.mark.parametrize(
    "put_there",
    [
        lambda folder: (folder / "step-000006").write_text("a file"),
        lambda folder: (folder / "step-000006").symlink_to(folder / "step-000004"),
        lambda folder: (folder / "step-6").mkdir(),
        lambda folder: (folder / ".tmp-x").symlink_to(folder.parent),
        lambda folder: (folder / "log.jsonl").symlink_to(folder.parent / "canary"),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_left(
    tmp_path: Path, put_there: Callable[[Path], Any]
) -> None:
    (tmp_path / "canary").write_text("alive")
    checkpoints = write(tmp_path / "c", 2, 4)
    put_there(tmp_path / "c")
    with pytest.raises(ConfigError, match=r"/c: "):
        newest(tmp_path / "c")
    assert (tmp_path / "c" / "step-000004" / MODEL).exists()
    # At the end of the run the folder goes but for that, by name.
    ours = {"step-000002", "step-000004"}
    (foreign,) = {path.name for path in (tmp_path / "c").iterdir()} - ours
    progress = Notes()
    checkpoints.remove(progress)
    assert [path.name for path in (tmp_path / "c").iterdir()] == [foreign]
    assert progress.notes == [f"{tmp_path / 'c'}: not removed, it holds {foreign}"]
    assert (tmp_path / "canary").read_text() == "alive"


def test_another_runs_checkpoint_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "c", 2, 4)
    other = Checkpoints(tmp_path / "c", {**FINGERPRINT, "seed": 2})
    with pytest.raises(ConfigError, match="`seed` differs: 1 then, 2 now"):
        other.load_newest(parameters())


def test_a_checkpoint_of_a_later_version_is_named(tmp_path: Path) -> None:
    write(tmp_path / "c", 4)
    reseal(tmp_path / "c" / "step-000004", format_version=2)
    with pytest.raises(CheckpointError, match="expected format_version 1, found 2"):
        newest(tmp_path / "c")


def test_the_newest_and_the_one_before_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "c", 2, 4, 6, 8)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "step-000006",
        "step-000008",
    ]


@pytest.mark.parametrize("group", ["model", "optimizer"])
def test_nothing_that_is_not_finite_is_saved(tmp_path: Path, group: str) -> None:
    checkpoints = write(tmp_path / "c", 2)
    poisoned = state(4)
    next(iter(getattr(poisoned, group).values())).fill_(float("inf"))
    with pytest.raises(NotFinite, match="step 4: expected finite"):
        checkpoints.save(poisoned)
    expect_equal(newest(tmp_path / "c"), 2)


def test_a_record_too_large_to_be_read_is_not_written(tmp_path: Path) -> None:
    checkpoints = write(tmp_path / "c", 2)
    long = state(4)
    long.history = long.history * 20_000
    with pytest.raises(StoreError, match="expected a record of at most"):
        checkpoints.save(long)
    expect_equal(newest(tmp_path / "c"), 2)
