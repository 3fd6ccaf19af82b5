"""Each candidate's graph, built in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from monox_kit.errors import ModelError
from monox_kit.exporting.attention import join_heads
from monox_kit.exporting.candidates import Candidate, Subject
from monox_kit.exporting.config import FORMS, INTEGER_PRECISIONS
from monox_kit.exporting.embeddings import quantize_embeddings
from monox_kit.exporting.graph import fuse_graph, write_form
from monox_kit.exporting.last_layer import slice_last_layer
from monox_kit.exporting.mixed import write_mixed
from monox_kit.exporting.quantize import write_quantized
from monox_kit.models.folder import BF16, FP32, ONNX_DATA_FILE, ONNX_FILE, ModelFolder
from monox_kit.models.torch_backend import load_classifier
from monox_kit.progress import Progress


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds graphs below `work`.

    Attributes:
        subject: what is exported.
        work: a folder under construction.
        progress: told where a graph's last layer stays whole.
    """

    subject: Subject
    work: Path
    progress: Progress

    def graph_folder(self, candidate: Candidate) -> Path:
        """Where the candidate's `model.onnx` lies; bf16 is a way to run the fp32 one."""
        stored = FP32 if candidate.precision == BF16 else candidate.precision
        return self.work / candidate.graph / stored

    def fp32_folder(self, candidate: Candidate) -> Path:
        """Where the fp32 graph lies that the candidate is, or was made from."""
        return self.graph_folder(replace(candidate, precision=FP32))

    def built(self, candidate: Candidate) -> ModelFolder:
        """The candidate as an openable folder; what is there already is used again.

        Raises:
            Exception: it cannot be built; exporters and quantizers raise whatever they meet.
        """
        source, folder = self.subject.folder, self.graph_folder(candidate)
        if not (folder / ONNX_FILE).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._write(candidate, folder)
            except BaseException:
                shutil.rmtree(folder)  # half-built, it would be taken for the whole later
                raise
        return ModelFolder(
            path=folder,
            name=f"{source.name} ({candidate.name})",
            config=source.config,
            record=source.record,
        )

    def _write(self, candidate: Candidate, folder: Path) -> None:
        source = self.fp32_folder(candidate)
        if folder != source:
            if candidate.precision == "int8-mixed":
                kept = ", ".join(write_mixed(source, folder, self.subject))
                self.progress.note(f"{candidate.name}: these stay in fp32: {kept}")
            else:
                write_quantized(candidate.precision, source, folder, self.subject.calibration)
            if candidate.precision in INTEGER_PRECISIONS:
                self._or_note(candidate, lambda: quantize_embeddings(folder, folder))
            return
        form, model = FORMS[candidate.graph], self.subject.reference.model
        if form.attention is not None:
            model = load_classifier(self.subject.folder, attention=form.attention).model
        write_form(model, folder, form, token_types=self.subject.tokenizer.has_token_types)
        texts, max_length = self.subject.calibration, self.subject.tokenizer.max_length
        self._or_note(candidate, lambda: slice_last_layer(folder, texts, max_length))
        self._or_note(candidate, lambda: join_heads(folder, texts, max_length))
        if form.fused:
            fuse_graph(model.config, folder)

    def _or_note(self, candidate: Candidate, change: Callable[[], object]) -> None:
        """Make a change that the graph is right without; why it is not made is told."""
        try:
            change()
        except ModelError as error:
            self.progress.note(f"{candidate.name}: {error}")


def graph_bytes(folder: Path) -> int:
    """Size of the graph and its weights."""
    files = (folder / ONNX_FILE, folder / ONNX_DATA_FILE)
    return sum(path.stat().st_size for path in files if path.is_file())
