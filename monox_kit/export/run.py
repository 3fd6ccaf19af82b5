"""The export stage: build candidates, check each against PyTorch, keep one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from monox_kit import __version__
from monox_kit.bundle import (
    ONNX_DATA_FILE,
    ONNX_FILE,
    RECORD_FILE,
    BundleRecord,
    ModelFolder,
    open_folder,
    write_record,
)
from monox_kit.corpora.corpus import Corpus
from monox_kit.data import Document
from monox_kit.digest import RowDigest
from monox_kit.durable import new_folder, owned_folder
from monox_kit.errors import ConfigError
from monox_kit.export.candidates import ExportConfig, Subject, build, candidate_names, check
from monox_kit.export.check import check_documents
from monox_kit.export.graph import OPSET
from monox_kit.onnx_model import require_provider
from monox_kit.progress import Progress, Silent
from monox_kit.scoring import score
from monox_kit.tokenizing import Tokenizer
from monox_kit.torch_model import load_classifier
from monox_kit.validation import checked


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export did.

    Attributes:
        path: the bundle's folder.
        precision: of the graph in it.
        opset: of the graph in it; None where optimum chose it.
        candidates: every precision that was built, by name.
        reused: whether the folder held the bundle of the same run.
    """

    path: Path
    precision: str
    opset: int | None
    candidates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reused: bool = False

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON values."""
        return {**asdict(self), "path": str(self.path)}


def export_model(
    config: ExportConfig, out: Path, *, progress: Progress | None = None
) -> ExportSummary:
    """Write the ONNX bundle of a fine-tuned model to `out`, once it agrees with PyTorch.

    Raises:
        GateError: a reduced precision gives other labels too often.
        ModelError: the fp32 graph differs from PyTorch by more than rounding.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    checked(config)
    progress = progress or Silent()
    require_provider(config.provider)
    source = open_folder(config.model, progress)
    source.require_backend("torch")
    max_length = source.resolve_max_length(config.max_length)
    documents = _documents(config, max_length, progress)
    run = _fingerprint(config, source, max_length, documents)
    with owned_folder(out):
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            return _finished(out, run)
        return _export(config, source, documents, out, run=run, progress=progress)


def _export(
    config: ExportConfig,
    source: ModelFolder,
    documents: Sequence[Document],
    out: Path,
    *,
    run: Mapping[str, Any],
    progress: Progress,
) -> ExportSummary:
    """Build, check and commit; see `export_model`."""
    names = candidate_names(config)
    with progress.task(f"exporting {source.name}", 2 + len(names), "steps") as task:
        task.detail("scoring the check texts with PyTorch")
        tokenizer = Tokenizer(source.path, int(run["max_length"]))
        reference = load_classifier(source)
        expected = score(reference, tokenizer, documents).logits
        subject = Subject(source, tokenizer, reference, documents, expected)
        task.advance()
        with new_folder(out) as building:
            work = building / "candidates"
            built = build(config, subject, work, names, task)
            task.detail("checking and timing")
            candidates = check(config, subject, built)
            chosen = next(name for name, value in candidates.items() if value.rejected is None)
            for name in (ONNX_FILE, ONNX_DATA_FILE):
                if (work / chosen / name).is_file():
                    shutil.move(work / chosen / name, building / name)
            shutil.rmtree(work)
            summary = ExportSummary(
                path=out,
                precision=chosen,
                opset=OPSET if config.exporter == "dynamo" else None,
                candidates={name: asdict(value) for name, value in candidates.items()},
            )
            _write_bundle(building, subject, summary, run)
        task.advance()
    return summary


def _write_bundle(
    folder: Path, subject: Subject, summary: ExportSummary, run: Mapping[str, Any]
) -> None:
    source, tokenizer = subject.folder, subject.tokenizer
    tokenizer.save(folder)
    shutil.copyfile(source.path / "config.json", folder / "config.json")
    chain = dict(source.record.provenance) if source.record else {}
    record = BundleRecord(
        labels=source.labels,
        max_length=tokenizer.max_length,
        backend="onnx",
        precision=summary.precision,
        has_pairs=source.record.has_pairs if source.record else None,
        provenance={"run": run, "source": chain},
        checks={"opset": summary.opset, "candidates": summary.candidates},
    )
    chosen = summary.candidates[summary.precision]["agreement"]
    card = (
        f"---\nlibrary_name: onnx\npipeline_tag: text-classification\n---\n\n"
        f"# {summary.path.name}\n\n`{source.name}` as an ONNX graph in {summary.precision}, "
        f"exported with monoxkit {__version__}.\n\nAgainst PyTorch on {chosen['num_texts']} "
        f"texts: same label on {chosen['argmax']:.1%}, largest logit difference "
        f"{chosen['max_delta']:.2e}, mean KL {chosen['mean_kl']:.2e}.\n"
    )
    write_record(folder, record, card)


def _documents(config: ExportConfig, max_length: int, progress: Progress) -> list[Document]:
    if config.check is None:
        progress.note("no --check text given: checking on built-in sentences in many languages")
        return check_documents([], max_length)
    # In turn from every file: one file per language is checked in every language.
    files = Corpus(config.check).files
    readers = [Corpus(replace(config.check, paths=(path,))).documents() for path in files]
    rows = (row for group in zip_longest(*readers) for row in group if row is not None)
    return check_documents(list(islice(rows, config.check_rows)), max_length)


def _fingerprint(
    config: ExportConfig, source: ModelFolder, max_length: int, documents: Sequence[Document]
) -> dict[str, Any]:
    digest = RowDigest()
    for document in documents:
        digest.add(document.text, document.text_pair)
    return {
        "command": "export",
        "model_digest": source.model_digest,
        "tokenizer_digest": source.tokenizer_digest,
        "precision": config.precision,
        "max_length": max_length,
        "check_digest": digest.hexdigest(),
        "min_agreement": config.min_agreement,
        "provider": config.provider,
        "exporter": config.exporter,
    }


def _finished(out: Path, run: Mapping[str, Any]) -> ExportSummary:
    """The summary of the equal run that already stands at `out`.

    Raises:
        ConfigError: something else stands there.
    """
    if not (out / RECORD_FILE).is_file():
        raise ConfigError(
            f"--out {out}: expected no folder or a finished export, found something else. "
            "Give another --out."
        )
    record = BundleRecord.read(out / RECORD_FILE)
    found = record.provenance.get("run", {})
    for key, value in run.items():
        if found.get(key) != value:
            raise ConfigError(
                f"{out}: expected {key} {value!r} as asked now, found {found.get(key)!r} of an "
                "earlier export. Give another --out, or delete the folder."
            )
    return ExportSummary(
        path=out,
        precision=record.precision,
        opset=record.checks.get("opset"),
        candidates=record.checks.get("candidates", {}),
        reused=True,
    )
