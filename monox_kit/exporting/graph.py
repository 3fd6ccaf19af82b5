"""PyTorch classifier to ONNX graph in fp32, in every form that some runtime likes best."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monox_kit.data import TokenBatch
from monox_kit.errors import MonoxError, first_line
from monox_kit.exporting.config import GraphForm
from monox_kit.models.folder import ONNX_DATA_FILE, ONNX_FILE
from monox_kit.models.torch_backend import model_inputs

# protobuf refuses messages of 2 GiB; weights go into a file beside the graph well before that.
_EXTERNAL_DATA_BYTES = 1_500_000_000

# How graphs are made. It counts up where the same model gives another graph than before, so that an
# earlier version's export is not taken for this one's.
GRAPHS_VERSION = 4

CONTRIB_DOMAIN = "com.microsoft"  # onnxruntime's own operators

# Shape [B, L] of the batch that a model is followed on; neither is special to any model.
_EXAMPLE = (2, 16)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def write_form(model: Any, folder: Path, form: GraphForm, *, token_types: bool) -> None:
    """Write `model.onnx` with dynamic batch and length, logits as [batch, C], and not yet fused.

    Args:
        model: a transformers sequence classifier on the CPU, in evaluation mode, with the form's
            attention.
        folder: a folder under construction.
        form: how to write it.
        token_types: whether the tokenizer makes `token_type_ids`, for models that take them.

    Raises:
        Exception: the model cannot be written so; the exporters raise whatever they meet.
    """
    ones = np.ones(_EXAMPLE, np.int64)
    example = TokenBatch(
        np.arange(len(ones)), ones, ones, np.zeros_like(ones) if token_types else None
    )
    inputs = model_inputs(model, example, "cpu")
    model.config.use_cache = (
        False  # of keys and values, for text to come; no exporter can return it
    )
    with quiet_exporter():
        # PyTorch's newer exporter starts at opset 18; the older one still writes 17.
        write = _export_dynamo if form.opset >= 18 else _export_torchscript
        write(model, folder, inputs, form.opset)
    gather_weights(folder)


def cause_of(error: BaseException) -> str:
    """The first line of what an exporter, a quantizer or a runtime met, without colours.

    PyTorch's exporter raises a page of advice, and what it met as that page's cause.
    """
    while error.__cause__ is not None and not isinstance(error, MonoxError):
        error = error.__cause__
    return _COLOURS.sub("", first_line(error))


def save_graph(graph: Any, folder: Path, name: str = ONNX_FILE) -> None:
    """Write an `onnx.ModelProto`; weights beyond protobuf's limit go into `NAME.data`."""
    import onnx

    large = sum(len(one.raw_data) for one in graph.graph.initializer) > _EXTERNAL_DATA_BYTES
    onnx.save(graph, str(folder / name), save_as_external_data=large, location=f"{name}.data")


def drop_unused_weights(graph: Any) -> None:
    """Remove weights of an `onnx.GraphProto` that no node takes any more."""
    used = {name for node in graph.node for name in read_names(node)}
    used |= {value.name for value in graph.output}
    kept = [value for value in graph.initializer if value.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def drop_unread(graph: Any) -> None:
    """Remove what no output of an `onnx.GraphProto` needs: nodes, what is said of them, weights."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):  # whoever reads a value stands below the node that makes it
        if needed.intersection(filter(None, node.output)):
            needed.update(read_names(node))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    known = [value for value in graph.value_info if value.name in needed]
    del graph.value_info[:]
    graph.value_info.extend(known)
    drop_unused_weights(graph)


def read_names(node: Any) -> list[str]:
    """The values that an `onnx.NodeProto` reads, those that its inner graphs read included."""
    names = list(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            names += (name for inner in attribute.g.node for name in read_names(inner))
            names += (value.name for value in attribute.g.output)
    return names


def gather_weights(folder: Path) -> None:
    """Put weights that PyTorch's older exporter left in a file each where the bundle expects them.

    It does so beyond 2 GB.
    """
    import onnx

    known = {ONNX_FILE, ONNX_DATA_FILE}
    graph = onnx.load(str(folder / ONNX_FILE), load_external_data=False)
    files = {
        entry.value
        for weight in graph.graph.initializer
        for entry in weight.external_data
        if entry.key == "location"
    }
    if files <= known:
        return
    save_graph(onnx.load(str(folder / ONNX_FILE)), folder)
    for name in files - known:
        (folder / name).unlink()


def _export_dynamo(model: Any, folder: Path, inputs: dict[str, torch.Tensor], opset: int) -> None:
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    program = torch.onnx.export(
        model,
        (),
        kwargs=inputs,
        dynamo=True,
        opset_version=opset,
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(inputs, axes),
        verbose=False,
    )
    assert program is not None  # with `dynamo` it returns one, or raises
    # Each node names the lines of code that it is from, by paths of this machine.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
    size = sum(value.numel() * value.element_size() for value in model.parameters())
    program.save(str(folder / ONNX_FILE), external_data=size > _EXTERNAL_DATA_BYTES)


def _export_torchscript(
    model: Any, folder: Path, inputs: dict[str, torch.Tensor], opset: int
) -> None:
    axes = {name: {0: "batch", 1: "length"} for name in inputs}
    torch.onnx.export(
        _Positional(model, tuple(inputs)),
        tuple(inputs.values()),
        str(folder / ONNX_FILE),
        dynamo=False,
        opset_version=opset,
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_axes={**axes, "logits": {0: "batch"}},
    )


class _Positional(torch.nn.Module):
    """A transformers model that takes its inputs by position: the older exporter's only way."""

    def __init__(self, model: torch.nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._names = names

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self._names, values))).logits
        return logits


def fuse_graph(config: Any, folder: Path) -> None:
    """Let onnxruntime.transformers rewrite the `model.onnx` of a transformers config's model."""
    from onnx.helper import make_opsetid
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model
    from optimum.utils import NormalizedTextConfig

    shape = NormalizedTextConfig(config)
    options = FusionOptions("bert")
    # Fused embeddings have fixed inputs, and only integers of 32 bits.
    options.enable_embed_layer_norm = False
    # On a CPU slower than its two parts; elsewhere onnxruntime fuses them when it loads the graph.
    options.enable_skip_layer_norm = False
    options.enable_bias_skip_layer_norm = False
    with quiet_exporter():
        fused = optimize_model(
            str(folder / ONNX_FILE),
            model_type="bert",
            num_heads=shape.num_attention_heads,
            hidden_size=shape.hidden_size,
            opt_level=0,
            optimization_options=options,
        )
    if not any(one.domain == CONTRIB_DOMAIN for one in fused.model.opset_import):
        fused.model.opset_import.append(make_opsetid(CONTRIB_DOMAIN, 1))
    (folder / ONNX_DATA_FILE).unlink(missing_ok=True)
    save_graph(fused.model, folder)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what exporters and quantizers say beside their errors, on standard output too."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "onnxscript", "root", "onnxruntime", "fusion_base", "nncf")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # onnxruntime's tools log as their own modules
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
