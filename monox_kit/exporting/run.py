"""The export stage: build candidates, check each against PyTorch, keep one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monox_kit import __version__
from monox_kit.corpora.marks import DocumentDigest
from monox_kit.data import Document
from monox_kit.durable import new_folder, write_json
from monox_kit.errors import NotFinite
from monox_kit.exporting.candidates import Candidate, Subject
from monox_kit.exporting.check_rows import CheckRows, gold_labels, languages_of, read_check_rows
from monox_kit.exporting.config import AUTO, FORMS, MONOXKIT, ExportConfig, LayoutName
from monox_kit.exporting.gate import NOT_SHOWN, GateReport
from monox_kit.exporting.graph import GRAPHS_VERSION, save_graph
from monox_kit.exporting.judge import Judge
from monox_kit.exporting.layouts import bundle_folder, lay_out, require_servable
from monox_kit.exporting.parts import Parts, bundle_parts, model_parts, parts_table
from monox_kit.exporting.search import Search
from monox_kit.exporting.trimmed import trim_of, trimmed_subject, trimmed_tokens
from monox_kit.foreign import (
    markdown_code,
    markdown_text,
    publishable,
    stored_name,
)
from monox_kit.hardware import read_hardware
from monox_kit.locks import owned_folder
from monox_kit.models.blueprint import shown_config
from monox_kit.models.folder import (
    BF16,
    CONFIG_FILE,
    FP32_FILE,
    ONNX_DATA_FILE,
    ONNX_FILE,
    RECORD_FILE,
    BundleRecord,
    ModelFolder,
    open_folder,
    write_record,
)
from monox_kit.models.graph_classifier import require_bf16
from monox_kit.models.load import EQUAL_LENGTHS, machine_of, needs_equal_lengths, open_tokenizer
from monox_kit.models.long_texts import long_field, long_sentence
from monox_kit.models.padding import EqualLengths
from monox_kit.models.providers import open_graph, require_provider, runtime_version
from monox_kit.models.record import calibration_field, published_provenance
from monox_kit.models.scoring import score_texts, tokenize
from monox_kit.models.self_test import write_golden
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import load_classifier
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, ProgressTask, Silent
from monox_kit.results import Result
from monox_kit.stage import is_finished
from monox_kit.trimming.run import Trim


@dataclass(frozen=True, slots=True)
class ExportSummary(Result):
    """What an export did.

    Attributes:
        path: the bundle's folder.
        precision: of the graph in it.
        chosen: its name among the candidates.
        opset: of the graph in it; None in bundles of 0.1.0 whose graph optimum-onnx wrote.
        provider: what ran the graph when it was checked.
        candidates: everything that was built or could not be, by name; see `Candidate`.
        bytes: of each part of the bundle, in the PyTorch model and in the bundle; empty for
            bundles that were exported before this was recorded.
        truncation: of the check texts, how many were truncated, and by how many tokens; empty for
            bundles of 0.1.0.
        gate: what the gate found of the graph in it; None where none was asked for.
        reused: whether the folder held the bundle of the same run.
    """

    path: Path
    precision: str
    chosen: str
    opset: int | None
    provider: str
    candidates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bytes: Parts = field(default_factory=dict)
    truncation: Mapping[str, int] = field(default_factory=dict)
    gate: GateReport | None = None
    reused: bool = False


def export_model(
    config: ExportConfig, out: Path, *, progress: Progress | None = None
) -> ExportSummary:
    """Write the ONNX bundle of a fine-tuned model to `out`, once it agrees with PyTorch.

    Raises:
        GateError: a reduced precision gives other labels too often, or the gate is failed; its
            `result` is a `RefusedExport`.
        ModelError: the model cannot be written as a graph that gives PyTorch's logits.
        NotFinite: PyTorch's own logits are not.
        ProviderError: the provider is not installed, or does not compute in bf16 as asked.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = progress or Silent()
    if config.provider != AUTO:
        require_provider(config.provider)
    if config.precision == BF16:
        require_bf16(config.provider)
    names = () if config.check is None else config.check.label_names
    source = open_folder(config.model, progress).named(names)
    source.require_backend("torch")
    tokenizer = open_tokenizer(source, config.max_length, config.long)
    rows = read_check_rows(config, tokenizer.max_length, progress)
    trim = trim_of(config, progress)
    run = _fingerprint(config, source, tokenizer, [*rows.check, *rows.calibration], trim)
    with owned_folder(out):
        if (finished := _finished(out, run, config.layout)) is not None:
            return finished
        with progress.task(f"exporting {source.name}", None, "graphs") as task:
            task.detail("scoring the check texts with PyTorch")
            subject = _subject(config, source, tokenizer, rows, progress)
            subject.check.truncation.tell(progress, tokenizer.max_length, "check texts")
            whole = (subject, rows, trim)
            return _export(config, whole, out, run, task=task, progress=progress)


def _subject(
    config: ExportConfig,
    source: ModelFolder,
    tokenizer: Tokenizer,
    rows: CheckRows,
    progress: Progress,
) -> Subject:
    """The model in PyTorch, opened and scored on the check texts.

    Raises:
        NotFinite: its own logits are not, so there is nothing to compare a graph with.
    """
    check = tokenize(tokenizer, rows.check)
    reference = load_classifier(source)
    gate, problem = config.thresholds, problem_of(reference.labels)
    gold = None
    if gate is not None:  # labels that do not fit are said before anything is computed
        gold = gold_labels(rows.check, problem, progress, is_needed=gate.drop is not None)
    try:
        equal_lengths = needs_equal_lengths(source, reference, tokenizer, is_fp32=True)
        runner = EqualLengths(reference) if equal_lengths else reference
        expected = score_texts(runner, check).logits
    except NotFinite as error:
        raise NotFinite(
            f"{source.name}: PyTorch's own logits are not finite, before anything is exported: "
            f"{error}"
        ) from error
    judge = None
    if gate is not None:
        tags = languages_of(rows.check)
        judge = Judge(gate, problem, expected, tags, check.document_lengths, gold)
        judge.tell(progress)
    return Subject(
        folder=source,
        tokenizer=tokenizer,
        reference=reference,
        check=check,
        calibration=tokenize(tokenizer, rows.calibration),
        calibration_languages=rows.calibration_languages,
        expected=expected,
        own=expected,
        num_bytes=model_parts(source, reference.model),
        equal_lengths=equal_lengths,
        judge=judge,
    )


def _export(
    config: ExportConfig,
    whole: tuple[Subject, CheckRows, Trim | None],
    out: Path,
    run: Mapping[str, Any],
    *,
    task: ProgressTask,
    progress: Progress,
) -> ExportSummary:
    """Trim where that is asked for, build, check and commit; see `export_model`."""
    subject, rows, trim = whole
    require_servable(
        config.layout,
        subject.folder.labels,
        subject.tokenizer,
        equal_lengths=subject.equal_lengths,
    )
    with new_folder(out) as building:
        work = building / "candidates"
        if trim is not None:
            task.detail("trimming")
            subject = trimmed_subject(subject, trim, rows, work / "trimmed", progress)
        search = Search(config, subject, work, task=task, progress=progress)
        best = search.keep_best()
        graph, fp32 = search.builder.graph_folder(best), search.builder.fp32_folder(best)
        _move_graph(graph, building)
        if graph != fp32 and keeps_fp32(config, subject.folder):
            _keep_fp32(fp32, building)
        shutil.rmtree(work)
        summary = ExportSummary(
            path=out,
            precision=best.precision,
            chosen=best.name,
            opset=FORMS[best.graph].opset,
            provider=best.provider,
            candidates=search.listed(),
            truncation=subject.check.truncation.to_json(),
            gate=best.gate,
        )
        summary = _write_bundle(building, subject, summary, best, run)
        lay_out(config.layout, building, out, subject.tokenizer)
    if best.gate is not None and best.gate.verdict == NOT_SHOWN:
        progress.note(
            f"the bundle is in place, but {best.name} is not shown to pass the gate: "
            f"{best.gate.told(NOT_SHOWN)}"
        )
    return summary


def keeps_fp32(config: ExportConfig, source: ModelFolder) -> bool:
    """Whether the fp32 graph stays beside a reduced one: labelling is guarded with teachers."""
    if config.keep_fp32 is not None:
        return config.keep_fp32
    return source.record is None or "train-student" not in source.record.stages


def _move_graph(source: Path, building: Path) -> None:
    for name in (ONNX_FILE, ONNX_DATA_FILE):
        if (source / name).is_file():
            shutil.move(source / name, building / name)


def _keep_fp32(source: Path, building: Path) -> None:
    """Put the fp32 graph beside the reduced one, under the names that belong to it."""
    if (source / ONNX_DATA_FILE).is_file():
        import onnx

        # The graph names its weights' file: it is written anew with the other name.
        save_graph(onnx.load(str(source / ONNX_FILE)), building, FP32_FILE)
    else:
        shutil.move(source / ONNX_FILE, building / FP32_FILE)


def _write_bundle(
    folder: Path,
    subject: Subject,
    summary: ExportSummary,
    best: Candidate,
    run: Mapping[str, Any],
) -> ExportSummary:
    """Write all that stands beside the graph; the summary with the bytes of each part."""
    source = subject.folder
    subject.tokenizer.save(folder)
    # Without what names files or code: others open the bundle, with tools that look for it.
    declared = shown_config(source.config, source.path / CONFIG_FILE)
    if source.label_names:
        names = source.labels.names
        declared["id2label"] = {str(index): name for index, name in enumerate(names)}
        declared["label2id"] = {name: index for index, name in enumerate(names)}
    write_json(folder / CONFIG_FILE, declared)
    record = _record(subject, summary, run)
    _write_golden(folder, subject, record, best.provider)
    parts = bundle_parts(subject.num_bytes, folder)
    gate = "" if summary.gate is None else summary.gate.markdown()
    card = _card(subject, summary, best) + _card_table(summary) + parts_table(parts) + gate
    write_record(folder, replace(record, checks={**record.checks, "bytes": parts}), card)
    return replace(summary, bytes=parts)


def _record(subject: Subject, summary: ExportSummary, run: Mapping[str, Any]) -> BundleRecord:
    source, tokenizer = subject.folder, subject.tokenizer
    chain = published_provenance(source.record.provenance) if source.record else {}
    return BundleRecord(
        labels=source.labels,
        max_length=tokenizer.max_length,
        backend="onnx",
        precision=summary.precision,
        has_pairs=source.record.has_pairs if source.record else None,
        long=tokenizer.long,
        truncation_side=tokenizer.truncation_side,
        padding_side=tokenizer.padding.side,
        calibration=source.record.calibration if source.record else None,
        provenance={"run": run, "source": chain},
        checks={
            "opset": summary.opset,
            "chosen": summary.chosen,
            "provider": summary.provider,
            "runtime": runtime_version(summary.provider),
            "hardware": read_hardware().to_json(),
            "candidates": publishable(summary.candidates),  # reasons quote files
            "truncation": summary.truncation,
            **({} if summary.gate is None else {"gate": summary.gate.to_json()}),
            EQUAL_LENGTHS: subject.equal_lengths,
        },
    )


def _card(subject: Subject, summary: ExportSummary, best: Candidate) -> str:
    assert best.agreement is not None  # nothing is kept that was not compared
    name = markdown_code(stored_name(subject.folder.name))
    card = (
        f"---\nlibrary_name: onnx\npipeline_tag: text-classification\n---\n\n"
        f"# {markdown_text(summary.path.name)}\n\n{name} as an ONNX graph in {summary.precision}, "
        f"exported with monoxkit {__version__}.\n\nAgainst PyTorch on {best.agreement.num_texts} "
        f"texts: same label on {best.agreement.argmax:.1%}, largest logit difference "
        f"{best.agreement.max_delta:.2e}, mean KL {best.agreement.mean_kl:.2e}.\n"
    )
    if (kept := trimmed_tokens(subject.folder)) is not None:
        card += f"\n{kept}\n"
    card += long_sentence(subject.tokenizer.long)
    if subject.equal_lengths:
        card += (
            "\nPadding changes this model's logits: give it texts of one length at a time, as "
            "monoxkit does.\n"
        )
    return card


def _write_golden(folder: Path, subject: Subject, record: BundleRecord, provider: str) -> None:
    """Record what the bundle gives golden texts, opened as its users will open it."""
    opened = replace(open_folder(str(folder)), record=record)
    write_golden(
        folder,
        subject.tokenizer,
        (subject.reference, machine_of("torch")),
        (open_graph(opened, provider=provider, keep=False), machine_of("onnx", provider)),
        has_pairs=bool(record.has_pairs),
    )


def _card_table(summary: ExportSummary) -> str:
    """Every candidate with its agreement, its speed and why it was rejected."""
    lines = [
        "",
        "| candidate | same label | mean KL | tokens/s | verdict |",
        "|---|---|---|---|---|",
    ]
    for name, one in summary.candidates.items():
        found, rate = one["agreement"], one["tokens_per_s"]
        shown = (
            ("-", "-") if found is None else (f"{found['argmax']:.1%}", f"{found['mean_kl']:.1e}")
        )
        speed = "-" if rate is None else f"{rate:,.0f}"
        verdict = markdown_text(publishable(one["rejected"] or "kept"))
        lines.append(f"| {name} | {shown[0]} | {shown[1]} | {speed} | {verdict} |")
    return "\n".join(lines) + "\n"


def _fingerprint(
    config: ExportConfig,
    source: ModelFolder,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    trim: Trim | None,
) -> dict[str, Any]:
    digest = DocumentDigest()
    for document in documents:
        digest.add_document(document)
    return {
        "command": "export",
        "graphs_version": GRAPHS_VERSION,
        "model_digest": source.model_digest,
        "tokenizer_digest": source.tokenizer_digest,
        **tokenizer.fingerprint(),
        "precision": config.precision,
        "max_length": tokenizer.max_length,
        **long_field(tokenizer.long),
        "check_digest": digest.hexdigest(),
        "check_rows": config.most_check_rows,
        "calibration_rows": config.calibration_rows,
        "min_agreement": config.min_agreement,
        "gate": None if config.thresholds is None else config.thresholds.asked(),
        "graph": config.graph,
        "candidates": None if config.candidates is None else list(config.candidates),
        "keep_fp32": keeps_fp32(config, source),
        "provider": config.provider,
        "exporter": config.exporter,
        # Runs of 0.1.0 know of no other.
        **({} if config.layout == MONOXKIT else {"layout": config.layout}),
        **({"label_names": list(source.label_names)} if source.label_names else {}),
        **({} if trim is None else {"trim_digest": trim.run["corpus_digest"]}),
        **calibration_field(source.record),
    }


def _finished(out: Path, run: Mapping[str, Any], layout: LayoutName) -> ExportSummary | None:
    """The summary of the equal run that already stands at `out`; None where `out` is free."""
    path = bundle_folder(layout, out) / RECORD_FILE
    record = BundleRecord.read(path) if path.is_file() else None
    if not is_finished(out, record and record.provenance.get("run"), run) or record is None:
        return None
    return ExportSummary(
        path=out,
        precision=record.precision,
        chosen=record.checks.get("chosen", record.precision),
        opset=record.checks.get("opset"),
        provider=record.checks.get("provider", "cpu"),
        candidates=record.checks.get("candidates", {}),
        bytes={part: (old, new) for part, (old, new) in record.checks.get("bytes", {}).items()},
        truncation=record.checks.get("truncation", {}),
        gate=GateReport.from_json(record.checks["gate"], path) if "gate" in record.checks else None,
        reused=True,
    )
