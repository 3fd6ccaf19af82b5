"""The trim stage: count tokens by language, keep what is needed, show that it reads as before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from monox_kit import __version__
from monox_kit.corpora.corpus import Corpus
from monox_kit.durable import new_folder, resolved
from monox_kit.foreign import markdown_code, markdown_text, stored_name
from monox_kit.hardware import installed_versions
from monox_kit.locks import owned_folder
from monox_kit.models.folder import (
    FP32,
    RECORD_FILE,
    BundleRecord,
    ModelFolder,
    content_digests,
    open_folder,
    require_content,
    write_record,
)
from monox_kit.models.load import open_tokenizer
from monox_kit.models.long_texts import long_field
from monox_kit.models.record import calibration_field, published_provenance
from monox_kit.models.sizes import tokenizer_bytes
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.progress import Progress, Silent
from monox_kit.stage import is_finished
from monox_kit.trimming.config import TrimConfig, TrimSummary
from monox_kit.trimming.languages import Survivors, count_tokens, language_report
from monox_kit.trimming.vocabulary import Vocabulary
from monox_kit.trimming.weights import config_ids, write_trimmed

_COMMAND = "trim"


def trim(config: TrimConfig, out: Path, *, progress: Progress | None = None) -> TrimSummary:
    """Write a model without the tokens that a corpus does not use to the folder `out`.

    For every text whose tokens all survive it is the same model: the same tokens, and in PyTorch
    the same logits in every bit. All texts of the corpus and some outputs are compared before
    anything is written. Run again when it has finished, it returns at once.

    Args:
        config: what is trimmed for which texts.
        out: the folder to write.
        progress: where progress is reported.

    Raises:
        ConfigError: something else stands at `out`, or another run's model.
        ModelError: the model is of a kind that cannot be trimmed.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress, out = progress or Silent(), resolved(out)
    job = Trim.opened(config, progress)
    with owned_folder(out):
        if (finished := _finished(out, job.run)) is not None:
            return finished
        with new_folder(out) as building:
            return job.write_model(building, out, progress)


@dataclass(frozen=True, slots=True)
class Trim:
    """A trim whose inputs have been read.

    Attributes:
        source: the whole model's folder.
        tokenizer: the whole model's.
        corpus: texts in every language that the model is to read.
        num_rows: of the corpus.
        coverage: see `TrimConfig`.
        run: everything that the trimmed model depends on, flat.
    """

    source: ModelFolder
    tokenizer: Tokenizer
    corpus: Corpus
    num_rows: int
    coverage: float
    run: Mapping[str, Any]

    @classmethod
    def opened(cls, config: TrimConfig, progress: Progress) -> Self:
        """The trim that is asked for.

        Raises:
            MonoxError: by kind, see `monox_kit.errors`.
        """
        corpus = Corpus(config.corpus, progress)
        source = open_folder(config.model, progress).named(config.corpus.label_names)
        source.require_backend("torch")
        tokenizer = open_tokenizer(source, config.max_length)
        scan = corpus.scan(progress=progress)
        run = _fingerprint(source, tokenizer, corpus, scan.digest, config.coverage)
        return cls(source, tokenizer, corpus, scan.num_rows, config.coverage, run)

    def write_model(self, folder: Path, out: Path, progress: Progress) -> TrimSummary:
        """Write the trimmed model with its record into a folder under construction.

        Args:
            folder: where to.
            out: what the folder will be called.
            progress: where progress is reported.

        Raises:
            ModelError: the model is of a kind that cannot be trimmed.
            CorpusError: the corpus has changed.
        """
        source, tokenizer = self.source, self.tokenizer
        task = progress.task("counting tokens", self.num_rows, "rows")
        before = count_tokens(self.corpus, tokenizer, task)
        wanted = {*tokenizer.special_ids, *config_ids(source.config, tokenizer.num_ids)}
        wanted.update(*(tally.wanted(self.coverage) for tally in before.values()))
        vocabulary = Vocabulary(tokenizer.content, source.path)
        cut = vocabulary.cut(wanted)
        trimmed, survivors = tokenizer.with_content(cut.content), Survivors(tokenizer, cut)
        task = progress.task("comparing tokens", self.num_rows, "rows")
        after = count_tokens(self.corpus, trimmed, task, survivors.compare)
        languages = language_report(before, after, survivors, cut, vocabulary.unknown_id)
        parts = write_trimmed(
            source, (tokenizer, trimmed), cut.old_ids, survivors.documents, folder
        )
        written = open_folder(str(folder.absolute()))
        summary = TrimSummary(
            path=str(out),
            num_tokens_before=tokenizer.num_ids,
            num_tokens=trimmed.num_ids,
            num_rows_compared=len(survivors.documents),
            bytes={**parts, "tokenizer": (tokenizer_bytes(source), tokenizer_bytes(written))},
            languages=languages,
        )
        _write_record(folder, source, trimmed, summary, self.run)
        return summary


def _fingerprint(
    source: ModelFolder, tokenizer: Tokenizer, corpus: Corpus, digest: str, coverage: float
) -> dict[str, Any]:
    """Everything that the trimmed model depends on, flat."""
    return {
        **calibration_field(source.record),
        "command": _COMMAND,
        "model_digest": source.model_digest,
        "tokenizer_digest": source.tokenizer_digest,
        **tokenizer.fingerprint(),
        "corpus_digest": digest,
        "languages": list(corpus.languages),
        "coverage": coverage,
        "max_length": tokenizer.max_length,
        **({"label_names": list(source.label_names)} if source.label_names else {}),
        **long_field(tokenizer.long),
    }


def _write_record(
    folder: Path,
    source: ModelFolder,
    tokenizer: Tokenizer,
    summary: TrimSummary,
    run: Mapping[str, Any],
) -> None:
    old = source.record
    record = BundleRecord(
        labels=source.labels if source.has_head else None,
        max_length=tokenizer.max_length,
        backend="torch",
        precision=FP32 if old is None else old.precision,
        has_pairs=None if old is None else old.has_pairs,
        long=tokenizer.long,
        truncation_side=tokenizer.truncation_side,
        padding_side=tokenizer.padding.side,
        calibration=None if old is None else old.calibration,
        provenance={
            "model": stored_name(source.name),
            "run": run,
            "source": {} if old is None else published_provenance(old.provenance),
            "versions": installed_versions(("torch", "transformers", "tokenizers")),
            "content": content_digests(folder),
        },
        checks={key: value for key, value in summary.to_json().items() if key != "path"},
    )
    kind = "pipeline_tag: text-classification\n" if source.has_head else ""
    name, languages = Path(summary.path).name, ", ".join(summary.languages)
    card = (
        f"---\nlibrary_name: transformers\n{kind}---\n\n# {markdown_text(name)}\n\n"
        f"{markdown_code(stored_name(source.name))} with {summary.num_tokens:,} of its "
        f"{summary.num_tokens_before:,} tokens, trimmed with monoxkit {__version__} for "
        f"{markdown_text(languages)}. Texts whose tokens are all among them have the same tokens "
        "and logits.\n"
    )
    write_record(folder, record, card)


def _finished(out: Path, run: Mapping[str, Any]) -> TrimSummary | None:
    """The summary of the equal run that already stands at `out`; None where `out` is free."""
    path = out / RECORD_FILE
    record = BundleRecord.read(path) if path.is_file() else None
    if not is_finished(out, record and record.provenance.get("run"), run) or record is None:
        return None
    require_content(out, record.provenance["content"])
    return TrimSummary.from_json({**record.checks, "path": str(out), "reused": True})
