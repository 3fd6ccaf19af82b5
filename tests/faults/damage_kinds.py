"""Kinds of damage to a complete store of three shards, with the error that each must end in.

`OPENED` is found when the store is opened, `READ` when its files are read, and `FORGED`, under
digests that fit, only by the format's own rules.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import numpy as np

from monox_kit.errors import StoreError
from monox_kit.store.record import MAX_RECORD_BYTES
from tests.faults.damage import (
    COMPLETE,
    RECORD,
    SHARD,
    STORE,
    Act,
    Damage,
    append,
    at,
    foreign,
    forge,
    header,
    link,
    link_to_nothing,
    lose,
    pop,
    put,
    put_folder,
    put_pipe,
    replace,
    resize,
    set_in,
    sign,
    swap,
)
from tests.store_samples import manifest


def _entry(value: Any) -> Act:
    return set_in(RECORD, "files", "text.npy", to=value)


def _manifest(says: str, *keys: Any, to: Any) -> Damage:
    return Damage(set_in(STORE, *keys, to=to), STORE, says)


_LATER = '"format_version": 1', '"format_version": 7'


def _many(item: bytes, num_items: int = MAX_RECORD_BYTES) -> Act:
    """Fill the manifest with a list."""
    num_items = min(num_items, (MAX_RECORD_BYTES - 1500) // len(item))
    new = b'"fingerprint": {"many": [' + item * num_items + b'"last"], '
    return sign(STORE, b'"fingerprint": {', new)


OPENED: dict[str, Damage] = {
    # store.json
    "manifest lost": Damage(lose(STORE), STORE, "found none"),
    "manifest empty": Damage(put(STORE, b""), STORE, "found an empty file"),
    "manifest is a folder": Damage(put_folder(STORE), STORE, "found something else"),
    "manifest is a pipe": Damage(
        lambda f: (put_pipe(STORE)(f), lose(COMPLETE)(f)), STORE, "a plain file"
    ),
    "manifest is a link": Damage(link(STORE), STORE, "found a link"),
    "manifest of zeros": Damage(put(STORE, bytes(900)), STORE, "found zeros alone"),
    "manifest not in UTF-8": Damage(replace(STORE, b"gam", b"\xff\xfe\xfd"), STORE, "utf-8"),
    "manifest too large": Damage(resize(STORE, 2**40), STORE, f"found {2**40} bytes"),
    "manifest too deep": Damage(put(STORE, b"[" * 10**5), STORE, "recursion"),
    "manifest of too many objects": Damage(_many(b"{},"), STORE, "100000 objects and lists"),
    "manifest of many objects": Damage(_many(b'{"a":0},', 99_990), STORE, "'many', found [{"),
    "manifest of many lists": Damage(_many(b"[],", 99_990), STORE, "'many', found [[]"),
    "manifest of many names": Damage(_many(b'"ab",'), STORE, "'many', found ['ab'"),
    "manifest of many numbers": Damage(_many(b"3.4,"), STORE, "'many', found [3.4"),
    "manifest is a list": Damage(put(STORE, b"[1]"), STORE, "a JSON object, found list"),
    "manifest with a key twice": Damage(
        sign(STORE, b'"shard_rows": 4', b'"shard_rows": 8, "shard_rows": 4'), STORE, "given twice"
    ),
    "manifest with NaN": Damage(sign(STORE, b": 128", b": NaN"), STORE, "the value NaN"),
    "manifest with infinity": Damage(sign(STORE, b": 128", b": 1e999"), STORE, "the value 1e999"),
    "manifest with half a character": Damage(
        sign(STORE, b'"games"', b'"\\ud83c"'), STORE, "surrogates not allowed"
    ),
    "manifest with a number of 5,000 digits": Damage(
        sign(STORE, b": 128", b": 1" + b"0" * 5000), STORE, "4300 digits"
    ),
    "manifest edited": Damage(replace(STORE, b": 128", b": 256"), STORE, "belongs to, found ano"),
    "manifest without a digest": Damage(
        put(STORE, json.dumps({**manifest().to_json()}).encode()), STORE, "no key 'record_digest'"
    ),
    "manifest of a later version": Damage(
        sign(STORE, *(one.encode() for one in _LATER)), STORE, "Upgrade monoxkit", StoreError
    ),
    "manifest of an earlier version": _manifest("version 1, found 0", "format_version", to=0),
    "manifest of version true": _manifest("version 1, found True", "format_version", to=True),
    "manifest with a key too many": _manifest("unknown key 'path'", "path", to="/etc/passwd"),
    "manifest without rows": _manifest("num_rows of at least 1, found 0", "num_rows", to=0),
    "manifest without shard rows": _manifest("at least 1, found -4", "shard_rows", to=-4),
    "manifest of 10^18 shards": _manifest("at most 1000000 shards", "num_rows", to=4 * 10**18),
    "manifest of 2^63 rows": _manifest(f"found {2**63}", "num_rows", to=2**63),
    "manifest with text for a number": _manifest("num_rows of type int", "num_rows", to="11"),
    "manifest with one label": _manifest("at least 2 distinct", "labels", "names", to=["a"]),
    "manifest with a label twice": _manifest("distinct", "labels", "names", to=["a", "a", "b"]),
    "manifest with labels of no text": _manifest("names", "labels", "names", to=[1, 2, 3]),
    "manifest with a list of labels": _manifest("labels of type dict", "labels", to=["a", "b"]),
    "manifest with an odd problem": _manifest(
        "_classification, found 1", "labels", "problem_type", to=1
    ),
    "manifest of a later problem type": Damage(
        set_in(STORE, "labels", "problem_type", to="odd"), STORE, "Upgrade monoxkit", StoreError
    ),
    "manifest of an unknown dtype": _manifest("float32 or float16", "dtype", to="|O"),
    "manifest with a list for a dtype": _manifest("found ['float32']", "dtype", to=["float32"]),
    "manifest with pairs 1": _manifest("has_pairs of type bool", "has_pairs", to=1),
    "manifest with a deep fingerprint": _manifest("'x'", "fingerprint", "x", to={"y": 1}),
    "manifest of another dtype": Damage(
        set_in(STORE, "dtype", to="float16"), f"{COMPLETE}|shard.json", "expected store"
    ),
    # complete.json
    "completion is a link": Damage(link(COMPLETE), COMPLETE, "found a link"),
    "completion is a link to nothing": Damage(link_to_nothing(COMPLETE), COMPLETE, "a link"),
    "completion is a folder": Damage(put_folder(COMPLETE), COMPLETE, "something else"),
    "completion cut short": Damage(resize(COMPLETE, 40), COMPLETE, "JSON record"),
    "completion of a later version": Damage(
        sign(COMPLETE, *(one.encode() for one in _LATER)), COMPLETE, "Upgrade", StoreError
    ),
    "completion of another length": Damage(
        set_in(COMPLETE, "num_rows", to=12), COMPLETE, "expected num_rows 11, found 12"
    ),
    "completion of other shards": Damage(
        set_in(COMPLETE, "num_shards", to=2), COMPLETE, "num_shards 3, found 2"
    ),
    "completion with another digest": Damage(
        set_in(COMPLETE, "digest", to="0" * 64), COMPLETE, "digest 0000"
    ),
    "completion without a digest": Damage(pop(COMPLETE, "digest"), COMPLETE, "no key 'digest'"),
    "completion with a summary of text": Damage(
        set_in(COMPLETE, "summary", to="fast"), COMPLETE, "summary of type dict"
    ),
    "completion of another store": Damage(foreign(COMPLETE), COMPLETE, "one was written later"),
    # shards/
    "shards lost": Damage(lose("shards"), "shards", "No such file"),
    "shards are a file": Damage(put("shards", b""), "shards", "itself, found a file"),
    "shards are a link": Damage(link("shards"), "shards", "of the store itself, found a link"),
    "shards emptied": Damage(
        lambda f: [lose(f"shards/00000{index}")(f) for index in range(3)], COMPLETE, "000000"
    ),
    "shard lost": Damage(lose(SHARD), COMPLETE, "no shards/000001"),
    "shard is a file": Damage(put(SHARD, b""), SHARD, "expected a folder"),
    "shard is a link": Damage(link(SHARD), SHARD, "a link"),
    "shard empty": Damage(
        lambda f: (lose(SHARD)(f), (f / SHARD).mkdir()), RECORD, "expected the file, found none"
    ),
    "shard too many": Damage(
        lambda f: shutil.copytree(f / SHARD, f / "shards/000003"), "shards", "'000003'"
    ),
    "shard of another name": Damage(
        lambda f: (f / SHARD).rename(f / "shards/1"), "shards", "only shards 000000 to 000002"
    ),
    "shard of digits that are not ASCII": Damage(
        lambda f: (f / SHARD).rename(f / "shards/00000\u0661"), "shards", "found '00000\u0661'"
    ),
    "shard of a name that is no text": Damage(
        lambda f: os.rename(f / SHARD, os.fsencode(f / "shards") + b"/\xff"), "shards", "udcff"
    ),
    "something else among shards": Damage(
        put("shards/notes.txt", b"mine"), "shards", "'notes.txt'"
    ),
    "shards swapped": Damage(swap, "000000/shard.json", "expected index 0, found 1"),
    "shard of another store": Damage(foreign(SHARD), RECORD, "expected store"),
    # shard.json
    "record lost": Damage(lose(RECORD), RECORD, "the file, found none"),
    "record is a link": Damage(link(RECORD), RECORD, "found a link"),
    "record cut short": Damage(resize(RECORD, 300), RECORD, "JSON record, found"),
    "record of a later version": Damage(
        sign(RECORD, *(one.encode() for one in _LATER)), RECORD, "Upgrade", StoreError
    ),
    "record of index true": Damage(set_in(RECORD, "index", to=True), RECORD, "found True"),
    "record of too many rows": Damage(set_in(RECORD, "stop", to=9), RECORD, "stop 8, found 9"),
    "record of an earlier row": Damage(set_in(RECORD, "start", to=0), RECORD, "start 4, found 0"),
    "record without a file": Damage(set_in(RECORD, "files", to={}), RECORD, "difference in"),
    "record with a list of files": Damage(
        set_in(RECORD, "files", to=["text.npy"]), RECORD, "files of type dict"
    ),
    "record naming a path": Damage(
        set_in(RECORD, "files", "../../../etc/passwd", to={"bytes": 1, "sha256": ""}),
        RECORD,
        "'../../../etc/passwd'",
    ),
    "record with a path for a file": Damage(_entry("/etc/passwd"), RECORD, "of text.npy, found"),
    "record with half an entry": Damage(_entry({"bytes": 160}), RECORD, "{'bytes': 160}"),
    "record with half a byte": Damage(
        _entry({"bytes": 160.5, "sha256": ""}), RECORD, "bytes of type int, found 160.5"
    ),
    "record without a SHA-256": Damage(
        lambda f: _entry({"bytes": (f / SHARD / "text.npy").stat().st_size, "sha256": None})(f),
        RECORD,
        "sha256 of type str",
    ),
    "record with a negative size": Damage(
        set_in(RECORD, "files", "text.npy", "bytes", to=-1), RECORD, "128 bytes of text.npy"
    ),
    "record with a huge size": Damage(
        set_in(RECORD, "files", "text.npy", "bytes", to=2**62),
        f"{SHARD}/text.npy",
        f"expected {2**62} bytes",
    ),
    "record with more logits": Damage(
        set_in(RECORD, "files", "logits.npy", "bytes", to=1000), RECORD, "176 bytes of logits.npy"
    ),
    "record with another digest": Damage(
        set_in(RECORD, "files", "ids.npy", "sha256", to="0" * 64), f"{COMPLETE}|ids.npy", "expected"
    ),
    "record with other recomputed rows": Damage(
        set_in(RECORD, "num_recomputed", to=4), f"{COMPLETE}|shard.json", "expected"
    ),
    "record without recomputed rows": Damage(pop(RECORD, "num_recomputed"), RECORD, "no key"),
    "record with other gold labels": Damage(
        set_in(RECORD, "num_labelled", to=4), f"{COMPLETE}|shard.json", "expected"
    ),
    # arrays
    "recomputed lost": Damage(lose(f"{SHARD}/recomputed.npy"), "recomputed.npy", "found none"),
    "logits lost": Damage(lose(f"{SHARD}/logits.npy"), "logits.npy", "found none"),
    "logits cut short": Damage(
        resize(f"{SHARD}/logits.npy", 170),
        "logits.npy",
        "expected 176 bytes, found 170. The file was cut short",
    ),
    "rows with a hole of 1 TiB": Damage(
        resize(f"{SHARD}/rows.npy", 2**40), "rows.npy", f"160 bytes, found {2**40}"
    ),
    "text too long": Damage(append(f"{SHARD}/text.npy", b"x"), "text.npy", "bytes, found"),
    "offsets empty": Damage(resize(f"{SHARD}/text_offsets.npy", 0), "text_offsets.npy", "found 0"),
    "ids are a link": Damage(link(f"{SHARD}/ids.npy"), "ids.npy", "found a link"),
    "ids are a folder": Damage(put_folder(f"{SHARD}/ids.npy"), "ids.npy", "something else"),
    "labels are a pipe": Damage(put_pipe(f"{SHARD}/labels.npy"), "labels.npy", "a plain file"),
}

_LOGITS = "the .npy header of <f4 (4, 3)"


def _header(name: str, descr: str, order: bool, shape: str) -> Act:
    return header(name, f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}")


HEADERS: dict[str, Damage] = {
    "header claims 4 TiB": Damage(
        _header("logits.npy", "<f4", False, "(4, 274877906944)"), "logits.npy", _LOGITS
    ),
    "header claims more than there is": Damage(
        _header("logits.npy", "<f4", False, f"({2**62}, {2**62})"), "logits.npy", _LOGITS
    ),
    "header claims less than there is": Damage(
        _header("logits.npy", "<f4", False, "(3, 3)"), "logits.npy", _LOGITS
    ),
    "header of a negative shape": Damage(
        _header("logits.npy", "<f4", False, "(-4, -3)"), "logits.npy", _LOGITS
    ),
    "header in another order": Damage(
        _header("logits.npy", "<f4", True, "(4, 3)"), "logits.npy", _LOGITS
    ),
    "header of the other endian": Damage(
        _header("logits.npy", ">f4", False, "(4, 3)"), "logits.npy", _LOGITS
    ),
    "header of 2^30 nested lists": Damage(header("logits.npy", "[" * 117), "logits.npy", _LOGITS),
    "header of a later version": Damage(
        header("logits.npy", "", version=b"\x03\x00"), "logits.npy", _LOGITS
    ),
    "header that calls": Damage(
        header("text.npy", "{'descr': exit(), 'shape': (9,)}"), "text.npy", "the .npy header"
    ),
    "header asks for pickle": Damage(
        replace(f"{SHARD}/text.npy", b"|u1", b"|O1"), "text.npy", "the .npy header of |u1"
    ),
    "header of zeros": Damage(
        put(f"{SHARD}/rows.npy", bytes(160)), "rows.npy", "the .npy header of <i8"
    ),
}
READ: dict[str, Damage] = {
    **HEADERS,
    "a file too many": Damage(put(f"{SHARD}/more.npy", b""), SHARD, "'more.npy'"),
    "a folder too many": Damage(lambda f: (f / SHARD / "more").mkdir(), SHARD, "'more'"),
    "logits of another shard": Damage(
        lambda f: shutil.copy(f / "shards/000000/logits.npy", f / SHARD / "logits.npy"),
        "logits.npy",
        "expected SHA-256",
    ),
    "text of zeros": Damage(
        lambda f: put(
            f"{SHARD}/text.npy",
            (c := (f / SHARD / "text.npy").read_bytes())[:128] + bytes(len(c) - 128),
        )(f),
        "text.npy",
        "expected SHA-256",
    ),
}
_LEAST, _MOST = -(2**63), 2**63 - 1
FORGED: dict[str, Damage] = {
    "rows in another order": Damage(
        forge("rows.npy", lambda a: a[::-1]), "rows.npy", "the row's own number in row 4"
    ),
    "rows of another shard": Damage(
        forge("rows.npy", lambda a: a - 4), "rows.npy", "the row's own number in row 4"
    ),
    "a logit that is no number": Damage(
        forge("logits.npy", at((2, 0), np.nan)), "logits.npy", "finite logits in row 6"
    ),
    "a logit without end": Damage(
        forge("logits.npy", at((3, 1), -np.inf)), "logits.npy", "finite logits in row 7"
    ),
    "a label too high": Damage(forge("labels.npy", at(0, 3)), "labels.npy", "labels from -1 to 2"),
    "a label too low": Damage(forge("labels.npy", at(0, -2)), "labels.npy", "to 2 in row 4"),
    "a label lost": Damage(forge("labels.npy", at(0, -1)), "shard.json", "expected num_labelled"),
    "recomputed twice": Damage(
        forge("recomputed.npy", at(3, 2)), "recomputed.npy", "0 or 1 in row 7"
    ),
    "recomputed less": Damage(
        forge("recomputed.npy", at(0, 1)), "shard.json", "expected num_recomputed 2, found 1"
    ),
    "an offset too high": Damage(
        forge("text_offsets.npy", at(1, 10_000)), "text_offsets.npy", "ascending offsets"
    ),
    "a first offset": Damage(
        forge("text_offsets.npy", at(0, 1)), "text_offsets.npy", "ascending offsets from 0"
    ),
    "a last offset": Damage(
        forge("ids_offsets.npy", at(-1, 2)), "ids_offsets.npy", "ascending offsets"
    ),
    "offsets whose differences overflow": Damage(
        forge("ids_offsets.npy", at(slice(1, 4), [_MOST, _LEAST, -1])),
        "ids_offsets.npy",
        "offsets from 0 to",
    ),
    "text that is not UTF-8": Damage(
        forge("text.npy", at(-1, 0xFF)), "text.npy", "UTF-8 text in row 7"
    ),
    "text cut within a character": Damage(
        forge("text_offsets.npy", at(3, 15)), "text.npy", "UTF-8 text in row 6"
    ),
}
