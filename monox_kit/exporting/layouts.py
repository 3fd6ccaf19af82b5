"""Layouts: a finished bundle as the folder that a server reads.

Source: text-embeddings-inference, `router/src/lib.rs` and `backends/ort/src/lib.rs`; Triton's
`model_config.proto` and its guide to model repositories.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monox_kit.data import SINGLE_LABEL, LabelSet
from monox_kit.durable import make_folder, write_file, write_json
from monox_kit.errors import ModelError
from monox_kit.exporting.config import LayoutName
from monox_kit.models.files import find_file, read_json
from monox_kit.models.folder import (
    CARD_FILE,
    CONFIG_FILE,
    ONNX_FILE,
    RECORD_FILE,
    BundleRecord,
    write_record,
)
from monox_kit.models.long_texts import HEAD
from monox_kit.models.tokenizer import Tokenizer

TEI: LayoutName = "tei"
TRITON: LayoutName = "triton"

# Where text-embeddings-inference reads the longest input from.
_LENGTH_FILE = "sentence_bert_config.json"
_VERSION = "1"
_LABELS_FILE = "labels.txt"
# Rows that Triton joins to one batch at most; on CPUs larger batches leave the cache.
_MAX_BATCH_ROWS = 32


def require_servable(
    layout: LayoutName, labels: LabelSet, tokenizer: Tokenizer, *, equal_lengths: bool
) -> None:
    """Check that a layout's server computes what the model computes.

    Args:
        layout: whose server.
        labels: the classes.
        tokenizer: with the bundle's cut.
        equal_lengths: whether padding changes the model's logits.

    Raises:
        ModelError: it would give other labels or other logits.
    """
    if layout == TEI:
        if labels.problem_type != SINGLE_LABEL:
            raise _unfit("it applies a softmax, and this model's texts may have several labels")
        if equal_lengths:
            raise _unfit("it pads texts, which changes this model's logits")
        if tokenizer.truncation_side != "right":
            raise _unfit("it truncates texts on the right, and this model reads their end")
        if tokenizer.long != HEAD:
            raise _unfit(f"it reads the head of long texts, and this model {tokenizer.long}")
    if layout == TRITON:
        for name in labels.names:
            if len(name.splitlines()) != 1:
                raise ModelError(
                    f"`layout` triton: label {name!r} has a line break, and Triton reads a label "
                    "from each line of a file. Rename the class."
                )


def bundle_folder(layout: LayoutName, out: Path) -> Path:
    """Where the bundle stands in the folder that is written.

    Triton's is a repository of one model, named as the folder, whose version 1 is the bundle.
    """
    if layout != TRITON:
        return out
    return out / re.sub(r"[^\w.-]", "_", out.name, flags=re.ASCII) / _VERSION


def lay_out(layout: LayoutName, folder: Path, out: Path, tokenizer: Tokenizer) -> None:
    """Turn a finished bundle, in a folder under construction, into a layout.

    Args:
        layout: which.
        folder: with the bundle.
        out: where the folder will stand.
        tokenizer: with the bundle's cut.

    Raises:
        ModelError: the server cannot run the graph.
    """
    if layout == TEI:
        _to_tei(folder, tokenizer)
    if layout == TRITON:
        _to_triton(folder, bundle_folder(layout, out).relative_to(out))


def _to_tei(folder: Path, tokenizer: Tokenizer) -> None:
    """Say labels, padding and the cut where text-embeddings-inference reads them."""
    if "attention_mask" not in _inputs(folder):
        raise _unfit("it gives every model an attention_mask, and this one takes none")
    record, file = BundleRecord.read(folder / RECORD_FILE), find_file(folder, CONFIG_FILE)
    assert record.labels is not None and file is not None  # the export wrote both
    names = record.labels.names
    config = {
        **read_json(file),
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "pad_token_id": tokenizer.padding.token_id,
    }
    write_json(folder / CONFIG_FILE, config)
    write_json(folder / _LENGTH_FILE, {"max_seq_length": tokenizer.max_length})
    write_record(folder, record, (folder / CARD_FILE).read_text(encoding="utf-8"))


def _unfit(reason: str) -> ModelError:
    return ModelError(
        f"`layout` tei: text-embeddings-inference cannot serve this model: {reason}. Leave "
        "`layout` out, or give triton."
    )


def _to_triton(folder: Path, place: Path) -> None:
    """Put the bundle at its place in a repository, with the model's configuration and labels."""
    record = BundleRecord.read(folder / RECORD_FILE)
    assert record.labels is not None  # what is exported scores classes
    files = sorted(folder.iterdir())
    bundle = folder / place
    make_folder(bundle)
    for file in files:
        file.rename(bundle / file.name)
    model, labels = bundle.parent, record.labels
    inputs = "".join(
        f'input {{\n  name: "{name}"\n  data_type: TYPE_INT64\n  dims: [ -1 ]\n}}\n'
        for name in _inputs(bundle)
    )
    config = (
        f'name: "{model.name}"\n'
        'backend: "onnxruntime"\n'
        f'default_model_filename: "{ONNX_FILE}"\n'
        f"max_batch_size: {_MAX_BATCH_ROWS}\n"
        f"{inputs}"
        "output {\n"
        '  name: "logits"\n'
        "  data_type: TYPE_FP32\n"
        f"  dims: [ {len(labels)} ]\n"
        f'  label_filename: "{_LABELS_FILE}"\n'
        "}\n"
        "dynamic_batching { }\n"
    )
    write_file(model / "config.pbtxt", config.encode())
    write_file(model / _LABELS_FILE, "".join(f"{name}\n" for name in labels.names).encode())


def _inputs(bundle: Path) -> list[str]:
    """The names of a graph's inputs."""
    import onnx

    graph: Any = onnx.load(str(bundle / ONNX_FILE), load_external_data=False).graph
    return [value.name for value in graph.input]
