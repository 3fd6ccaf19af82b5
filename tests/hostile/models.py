"""Hostile model folders as code: a table of small builders over a tiny model's folder."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from tests.hostile.canary import Canary

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, TOKENIZER, SETTINGS = "config.json", "tokenizer.json", "tokenizer_config.json"
RECORD, GRAPH = "monoxkit.json", "model.onnx"


@dataclass(frozen=True)
class Case:
    """One hostile folder.

    Attributes:
        name: of the case.
        build: changes a folder that holds an honest model.
        names: what the refusal must name; None where the model loads, without what is hostile.
    """

    name: str
    build: Callable[[Path, Canary], object]
    names: str | None


def edit(folder: Path, file: str, **values: Any) -> None:
    """Set keys of a JSON file."""
    path = folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | values))


def drop(folder: Path, file: str, *keys: str) -> None:
    """Remove keys of a JSON file."""
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({k: v for k, v in content.items() if k not in keys}))


def text(file: str, content: str | bytes) -> Callable[[Path, Canary], object]:
    """Replace a file by content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder, _: (folder / file).write_bytes(data)


def key(file: str, **values: Any) -> Callable[[Path, Canary], object]:
    """Set keys of a JSON file."""
    return lambda folder, _: edit(folder, file, **values)


def linked(file: str) -> Callable[[Path, Canary], object]:
    """A link to the canary in place of a file."""

    def build(folder: Path, canary: Canary) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(canary.secret)

    return build


def kind(file: str, what: str) -> Callable[[Path, Canary], object]:
    """A FIFO, a folder, a broken link or a loop of links in place of a file."""

    def build(folder: Path, _: Canary) -> None:
        (folder / file).unlink(missing_ok=True)
        match what:
            case "fifo":
                os.mkfifo(folder / file)
            case "folder":
                (folder / file).mkdir()
            case "broken":
                (folder / file).symlink_to("nothing")
            case "loop":
                (folder / file).symlink_to(file)
            case "device":
                (folder / file).symlink_to("/dev/zero")

    return build


def deep(opening: str, closing: str, depth: int = 100_000) -> str:
    """JSON nested without end."""
    return f'{{"a": {opening * depth}1{closing * depth}}}'


def index(**names: str) -> Callable[[Path, Canary], object]:
    """An index in place of the weights; `{canary}` stands for the canary's folder."""

    def build(folder: Path, canary: Canary) -> None:
        (folder / WEIGHTS).rename(folder / "one.safetensors")
        (folder / "w.bin").write_bytes(canary.pickled())
        tensors = {
            tensor: name.format(canary=canary.secret.parent) for tensor, name in names.items()
        }
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": tensors}))

    return build


def header(**changes: Any) -> Callable[[Path, Canary], object]:
    """Weights whose header says something else of one tensor."""

    def build(folder: Path, _: Canary) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        value = json.loads(content[8 : 8 + length])
        value["classifier.bias"] |= changes
        text = json.dumps(value).encode()
        data = struct.pack("<Q", len(text)) + text + content[8 + length :]
        (folder / WEIGHTS).write_bytes(data)

    return build


def weights(**changes: np.ndarray | None) -> Callable[[Path, Canary], object]:
    """Other weights; None removes a tensor."""

    def build(folder: Path, _: Canary) -> None:
        tensors = load_file(folder / WEIGHTS) | {
            name.replace("__", "."): value for name, value in changes.items()
        }
        kept = {name: value for name, value in tensors.items() if value is not None}
        save_file(kept, folder / WEIGHTS, {"format": "pt"})

    return build


def code_of_its_own(file: str, **values: Any) -> Callable[[Path, Canary], object]:
    """A configuration that asks for the folder's code, and that code, which is a canary."""

    def build(folder: Path, canary: Canary) -> None:
        (folder / "evil.py").write_text(canary.code)
        edit(folder, file, **values)

    return build


def graph(
    inputs: dict[str, int] | None = None,
    outputs: tuple[str, list[Any]] = ("logits", ["B", 3]),
    nodes: list[Any] | None = None,
    locations: tuple[str, ...] = (),
) -> Callable[[Path, Canary], object]:
    """An ONNX bundle in place of the weights.

    Args:
        inputs: the element type of each input.
        outputs: the output's name and its axes.
        nodes: in place of those that compute logits.
        locations: external data at these; `{canary}` stands for the canary's path.
    """

    def build(folder: Path, canary: Canary) -> None:
        (folder / WEIGHTS).unlink()
        write_graph(folder / GRAPH, inputs, outputs, nodes)
        if locations:
            model = onnx.load(str(folder / GRAPH))
            for number, location in enumerate(locations):
                tensor = model.graph.initializer.add(
                    name=f"w{number}", data_type=TensorProto.FLOAT, dims=[2]
                )
                tensor.data_location = TensorProto.EXTERNAL
                place = location.format(canary=canary.secret)
                tensor.external_data.add(key="location", value=place)
            (folder / GRAPH).write_bytes(model.SerializeToString())

    return build


def write_graph(
    path: Path,
    inputs: dict[str, int] | None = None,
    outputs: tuple[str, list[Any]] = ("logits", ["B", 3]),
    nodes: list[Any] | None = None,
) -> None:
    """A graph of three logits: the first ids of each text, as numbers."""
    kinds = {"input_ids": TensorProto.INT64, "attention_mask": TensorProto.INT64}
    kinds |= {} if inputs is None else inputs
    name, axes = outputs
    take = helper.make_node("Gather", ["input_ids", "first"], ["ids"], axis=1)
    cast = helper.make_node("Cast", ["ids"], [name], to=TensorProto.FLOAT)
    made = helper.make_graph(
        [take, cast] if nodes is None else nodes,
        "graph",
        [helper.make_tensor_value_info(key, kinds[key], ["B", "L"]) for key in kinds],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)],
        [helper.make_tensor("first", TensorProto.INT64, [3], bytes(24), raw=True)],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), str(path))


def nested_graphs(folder: Path, _: Canary) -> None:
    """A node with a graph with a node with a graph, without end."""
    inner = b""
    for _number in range(1000):
        for field in (6, 5, 1):  # a graph in an attribute in a node
            inner = bytes([field << 3 | 2]) + _varint(len(inner)) + inner
    (folder / WEIGHTS).unlink()
    (folder / GRAPH).write_bytes(b"\x3a" + _varint(len(inner)) + inner)


def _varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def bundle(**values: Any) -> Callable[[Path, Canary], object]:
    """A record with other values."""
    record = {
        "format_version": 1,
        "labels": {"names": ["games", "mail", "text"], "problem_type": SINGLE},
        "max_length": 16,
        "backend": "torch",
        "precision": "fp32",
        "has_pairs": False,
    }
    return text(RECORD, json.dumps(record | values))


SINGLE = "single_label_classification"


def adapter(folder: Path, canary: Canary) -> None:
    """A PEFT adapter in place of a model."""
    shutil.rmtree(folder)
    folder.mkdir()
    edit(folder, "adapter_config.json", base_model_name_or_path=str(canary.secret.parent))


def sharded_checkpoint(folder: Path, canary: Canary) -> None:
    """What torch.distributed saves: its metadata is a pickle."""
    (folder / ".metadata").write_bytes(canary.pickled())
    (folder / "__0_0.distcp").write_bytes(canary.pickled())


def lfs(file: str) -> Callable[[Path, Canary], object]:
    """What Git keeps in place of a large file."""
    return text(file, "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")


def tokenizer(**parts: Any) -> Callable[[Path, Canary], object]:
    """`tokenizer.json` with other parts; a dict changes the part that is there."""

    def build(folder: Path, _: Canary) -> None:
        content = json.loads((folder / TOKENIZER).read_text())
        for name, value in parts.items():
            is_change = isinstance(value, dict) and isinstance(content.get(name), dict)
            content[name] = content[name] | value if is_change else value
        (folder / TOKENIZER).write_text(json.dumps(content))

    return build


def secret_key(file: str, *names: str) -> Callable[[Path, Canary], object]:
    """Keys whose value is the canary's path."""
    return lambda folder, canary: edit(folder, file, **dict.fromkeys(names, str(canary.secret)))
