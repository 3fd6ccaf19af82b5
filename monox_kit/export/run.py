"""The export stage: build candidates, check each against PyTorch, keep one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

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
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Document, Logits
from monox_kit.digest import RowDigest
from monox_kit.durable import new_folder, owned_folder
from monox_kit.errors import ConfigError, GateError, ModelError
from monox_kit.export.check import Agreement, agreement, check_documents
from monox_kit.export.graph import (
    OPSET,
    Exporter,
    write_fp16,
    write_fp32,
    write_fp32_with_optimum,
    write_int8,
)
from monox_kit.hardware import has_vnni
from monox_kit.inference import race, score
from monox_kit.onnx_model import OnnxClassifier, require_runtime
from monox_kit.progress import Progress, ProgressTask, Silent
from monox_kit.tokenizing import Tokenizer
from monox_kit.torch_model import TorchClassifier, load_classifier
from monox_kit.validation import checked

Precision = Literal["fp32", "int8", "fp16", "auto"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """How a model is exported.

    Attributes:
        model: a fine-tuned PyTorch folder.
        precision: `fp32`, `int8` (weights per channel, activations quantized while it runs),
            `fp16`, or `auto`: the fastest on this machine that agrees with PyTorch.
        max_length: the cut in tokens that the bundle declares; None for the model's own.
        check: real text to check on; None for built-in sentences in many languages.
        check_rows: at most so many rows of it.
        min_agreement: least fraction of check texts on which a reduced precision must give
            PyTorch's label.
        provider: the execution provider to check and time on.
        exporter: `dynamo` is ours on torch.onnx.export, `optimum` needs optimum-onnx.
    """

    model: str
    precision: Precision = "fp32"
    max_length: Annotated[int, Field(ge=4)] | None = None
    check: CorpusConfig | None = None
    check_rows: Annotated[int, Field(ge=1)] = 200
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.95
    provider: str = "cpu"
    exporter: Exporter = "dynamo"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One precision that was built.

    Attributes:
        agreement: with PyTorch on the check texts.
        model_bytes: size of graph and weights.
        race_s: median seconds for the check texts; None where nothing was timed.
        rejected: why it was not kept; None for the one that was.
    """

    agreement: Agreement
    model_bytes: int
    race_s: float | None = None
    rejected: str | None = None


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


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is exported, and what its graphs are compared with."""

    folder: ModelFolder
    tokenizer: Tokenizer
    reference: TorchClassifier
    documents: Sequence[Document]
    expected: Logits


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
    require_runtime()
    source = open_folder(config.model, progress)
    source.require_backend("torch")
    max_length = source.resolve_max_length(config.max_length)
    documents = _documents(config, max_length, progress)
    run = _fingerprint(config, source, max_length, documents)
    with owned_folder(out):
        if out.exists():
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
    names = _candidates(config)
    with progress.task(f"exporting {source.name}", 2 + len(names), "steps") as task:
        task.detail("scoring the check texts with PyTorch")
        tokenizer = Tokenizer(source.path, int(run["max_length"]))
        reference = load_classifier(source)
        expected = score(reference, tokenizer, documents).logits
        subject = _Subject(source, tokenizer, reference, documents, expected)
        task.advance()
        with new_folder(out) as building:
            work = building / "candidates"
            built = _build(config, subject, work, names, task)
            task.detail("checking and timing")
            candidates = _check(config, subject, built)
            chosen = next(name for name, value in candidates.items() if value.rejected is None)
            for name in (ONNX_FILE, ONNX_DATA_FILE):
                if (built[chosen].path / name).is_file():
                    shutil.move(built[chosen].path / name, building / name)
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


def _candidates(config: ExportConfig) -> list[str]:
    """The precisions to build; fp32 is the source of the others."""
    if config.precision == "auto":
        return ["fp32", "fp16"] if config.provider in ("cuda", "tensorrt") else ["fp32", "int8"]
    return [config.precision]


def _build(
    config: ExportConfig, subject: _Subject, work: Path, names: Sequence[str], task: ProgressTask
) -> dict[str, ModelFolder]:
    """Every candidate as an openable folder below `work`, by name."""
    source = subject.folder
    fp32 = work / "fp32"
    fp32.mkdir(parents=True)
    task.detail("tracing the graph")
    if config.exporter == "optimum":
        write_fp32_with_optimum(source, fp32)
    else:
        write_fp32(subject.reference.model, fp32, subject.tokenizer.has_token_types)
    folders = {}
    for name in names:
        folder = work / name
        folder.mkdir(exist_ok=True)
        task.detail(f"building {name}")
        if name == "int8":
            write_int8(fp32, folder, reduce_range=not has_vnni())
        elif name == "fp16":
            write_fp16(fp32, folder)
        folders[name] = ModelFolder(
            path=folder, name=f"{source.name} ({name})", config=source.config, record=source.record
        )
        task.advance()
    return folders


def _check(
    config: ExportConfig, subject: _Subject, built: Mapping[str, ModelFolder]
) -> dict[str, Candidate]:
    """Every candidate checked, all but one rejected with the reason."""
    labels, tokenizer = subject.reference.labels, subject.tokenizer
    classifiers = {
        name: OnnxClassifier(folder, labels, provider=config.provider)
        for name, folder in built.items()
    }
    found = {
        name: agreement(subject.expected, score(graph, tokenizer, subject.documents).logits)
        for name, graph in classifiers.items()
    }
    reasons = {name: _reason(name, value, config) for name, value in found.items()}
    passed = [name for name, reason in reasons.items() if reason is None]
    if not passed:
        name = next(iter(reasons))
        error = ModelError if name == "fp32" else GateError
        raise error(f"{subject.folder.name}: {reasons[name]}")
    times = race({name: classifiers[name] for name in passed}, tokenizer, subject.documents)
    fastest = min(times, key=lambda name: times[name])
    reasons |= {name: f"slower than {fastest} here" for name in passed if name != fastest}
    return {
        name: Candidate(
            agreement=value,
            model_bytes=_model_bytes(built[name].path),
            race_s=times.get(name),
            rejected=reasons[name],
        )
        for name, value in found.items()
    }


def _reason(name: str, found: Agreement, config: ExportConfig) -> str | None:
    """Why a candidate must not be released; None where it may."""
    if name == "fp32" and not found.within_fp32:
        return (
            f"expected the fp32 graph's logits within rounding of PyTorch's, found a difference "
            f"of {found.max_delta:.2e} on {found.num_texts} texts. Try another --exporter."
        )
    if name != "fp32" and found.argmax < config.min_agreement:
        return (
            f"expected {name} to give PyTorch's label on at least {config.min_agreement:.1%} of "
            f"{found.num_texts} texts (--min-agreement), found {found.argmax:.1%}. "
            "Use --precision fp32, or allow less."
        )
    return None


def _write_bundle(
    folder: Path, subject: _Subject, summary: ExportSummary, run: Mapping[str, Any]
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
    given = list(islice(Corpus(config.check).documents(), config.check_rows))
    return check_documents(given, max_length)


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
        raise ConfigError(f"{out}: expected no folder yet, found one. Give another --out.")
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


def _model_bytes(folder: Path) -> int:
    files = (folder / ONNX_FILE, folder / ONNX_DATA_FILE)
    return sum(path.stat().st_size for path in files if path.is_file())
