"""The calibration stage: a copy of a model whose record says how sure its answers are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from monox_kit import __version__
from monox_kit.corpora.marks import DocumentDigest
from monox_kit.data import Document
from monox_kit.durable import make_folder, new_folder, new_member, resolved
from monox_kit.errors import ModelError
from monox_kit.evaluation.calibration import (
    CalibrateConfig,
    CalibrateSummary,
    Calibrator,
    LanguageCalibration,
    require_enough,
)
from monox_kit.evaluation.run import gold_labels, read_test, require_pairs, score_languages
from monox_kit.foreign import markdown_text, stored_name
from monox_kit.locks import owned_folder
from monox_kit.models.files import find_file
from monox_kit.models.folder import (
    CARD_FILE,
    FP32,
    FP32_FILE,
    ONNX_FILE,
    RECORD_FILE,
    BundleRecord,
    ModelFolder,
    content_digests,
    require_content,
    write_record,
)
from monox_kit.models.load import LoadedModel
from monox_kit.models.long_texts import long_field
from monox_kit.models.record import published_provenance
from monox_kit.problem import problem_of
from monox_kit.progress import Progress, Silent
from monox_kit.stage import is_finished

_CHECKS_KEY = "calibration"


def calibrate(
    config: CalibrateConfig, out: Path, *, progress: Progress | None = None
) -> CalibrateSummary:
    """Write the model with temperatures and thresholds in its record to the folder `out`.

    Weights, graph and tokenizer are copied as they are. Run again when it has finished, it returns
    at once.

    Args:
        config: which model is calibrated on what.
        out: the folder to write.
        progress: where progress is reported.

    Raises:
        ConfigError: something else stands at `out`, or another run's model.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress, out = progress or Silent(), resolved(out)
    loaded = config.load(config.dev, progress)
    documents = read_test(config.dev, loaded.classifier.labels, progress)
    require_pairs(loaded, documents, "dev")
    require_enough(documents, config)
    with owned_folder(out):
        run = _fingerprint(config, loaded, documents)
        if (finished := _finished(out, run)) is not None:
            return finished
        scores = score_languages(loaded, documents, config.batch_tokens, progress)
        scores.truncation.tell(progress, loaded.tokenizer.max_length, "dev rows")
        problem = problem_of(scores.labels)
        gold = {name: gold_labels(problem, rows) for name, rows in documents.items()}
        found = Calibrator(config, problem, scores.logits, gold, progress)
        summary = found.summary(out)
        with new_folder(out) as building:
            _write(building, loaded, summary, run)
    return summary


def _write(
    folder: Path, loaded: LoadedModel, summary: CalibrateSummary, run: Mapping[str, Any]
) -> None:
    """The model's files as they are, its record with the calibration, and its card."""
    source, tokenizer = loaded.folder, loaded.tokenizer
    for name, path in _files(source).items():
        if "/" in name:
            make_folder((folder / name).parent)
        with path.open("rb") as read, new_member(folder / name) as stream:
            shutil.copyfileobj(read, stream)
    old = source.record
    content = content_digests(folder)
    if content["model_digest"] != source.model_digest:
        raise ModelError(
            f"{source.path}: the files changed while they were copied. Run the command again."
        )
    kept = {
        "languages": {name: asdict(each) for name, each in summary.languages.items()},
        "stand_in": list(summary.stand_in),
    }
    record = BundleRecord(
        labels=loaded.classifier.labels,
        max_length=tokenizer.max_length,
        backend=source.backend,
        precision=FP32 if old is None else old.precision,
        has_pairs=None if old is None else old.has_pairs,
        long=tokenizer.long,
        truncation_side=tokenizer.truncation_side,
        padding_side=tokenizer.padding.side,
        calibration=summary.calibration,
        provenance={
            "model": stored_name(source.name),
            "run": run,
            "source": {} if old is None else published_provenance(old.provenance),
            "versions": {"monoxkit": __version__},
            "content": content,
        },
        checks={**({} if old is None else old.checks), _CHECKS_KEY: kept},
    )
    write_record(folder, record, _card(source, summary))


def _files(source: ModelFolder) -> dict[str, Path]:
    """By name, every file of the model, records and card aside."""
    names = {*source.files, *source.weights}
    for graph in (ONNX_FILE, FP32_FILE):
        names |= source.graph_files(graph).keys()
    if source.record is not None:
        names |= source.record.files.keys()
    names -= {RECORD_FILE, CARD_FILE}
    found = {name: find_file(source.path, name) for name in sorted(names)}
    return {name: file.path for name, file in found.items() if file is not None}


def _card(source: ModelFolder, summary: CalibrateSummary) -> str:
    """The model's own card with what was found."""
    file = find_file(source.path, CARD_FILE)
    card = f"# {markdown_text(summary.path.name)}\n"
    if file is not None:
        card = file.path.read_text(encoding="utf-8", errors="replace")
    lines = [
        "",
        "## Calibration",
        "",
        "Expected calibration error before and after, on the rows that it was made with.",
        "",
        "| language | rows | temperature | before | after | threshold | coverage | precision |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in summary.languages.items():
        numbers = (one.threshold, one.coverage, one.precision)
        shown = " | ".join("-" if each is None else f"{each:.3f}" for each in numbers)
        temperatures = ", ".join(f"{each:.3g}" for each in one.temperatures[:8])
        lines.append(
            f"| {markdown_text(name)} | {one.num_rows:,} | {temperatures} | "
            f"{one.error_before:.3f} | {one.error_after:.3f} | {shown} |"
        )
    lines += [
        "",
        f"Other languages have the values of {markdown_text(', '.join(summary.stand_in))}, which "
        "are optimistic for languages unlike it.",
    ]
    return card.rstrip("\n") + "\n" + "\n".join(lines) + "\n"


def _fingerprint(
    config: CalibrateConfig, loaded: LoadedModel, documents: Mapping[str, Sequence[Document]]
) -> dict[str, Any]:
    """Everything that the calibration depends on, flat."""
    digest = DocumentDigest()
    for language in sorted(documents):
        for document in documents[language]:
            digest.add_document(replace(document, lang=language))
    return {
        "command": "calibrate",
        "model_digest": loaded.folder.model_digest,
        "tokenizer_digest": loaded.folder.tokenizer_digest,
        **loaded.tokenizer.fingerprint(),
        "backend": loaded.backend,
        "provider": config.provider,
        "labels": loaded.classifier.labels.fingerprint,
        "max_length": loaded.tokenizer.max_length,
        **long_field(loaded.tokenizer.long),
        "dev_digest": digest.hexdigest(),
        "precision": config.precision,
        "temperature": config.temperature,
        "source_language": config.source_language,
        "min_rows": config.min_rows,
        "num_resamples": config.num_resamples,
        "seed": config.seed,
    }


def _finished(out: Path, run: Mapping[str, Any]) -> CalibrateSummary | None:
    """The summary of the equal run that already stands at `out`; None where `out` is free."""
    path = out / RECORD_FILE
    record = BundleRecord.read(path) if path.is_file() else None
    if not is_finished(out, record and record.provenance.get("run"), run) or record is None:
        return None
    require_content(out, record.provenance["content"])
    kept = record.checks[_CHECKS_KEY]
    assert record.calibration is not None  # written with the run
    return CalibrateSummary(
        path=out,
        languages={
            name: LanguageCalibration.from_json(each) for name, each in kept["languages"].items()
        },
        stand_in=tuple(kept["stand_in"]),
        wanted_precision=record.calibration.precision,
        calibration=record.calibration,
        reused=True,
    )
