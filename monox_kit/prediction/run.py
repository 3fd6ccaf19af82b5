"""The predict stage: files of texts in, one file of labels and probabilities out.

Rows are predicted in parts of `PART_ROWS`. Each finished part is a file beside the output, so that
an interrupted run goes on behind the last of them; the output appears whole, at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusSummary
from monox_kit.corpora.marks import DocumentDigest
from monox_kit.data import Document
from monox_kit.digest import digest_file
from monox_kit.durable import make_folder, new_file, remove_folder, write_json
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.locks import owned_folder
from monox_kit.models.long_texts import long_field
from monox_kit.models.predict import Model
from monox_kit.models.record import calibration_field
from monox_kit.models.scoring import Truncation
from monox_kit.prediction.config import PredictConfig, PredictSummary
from monox_kit.prediction.rows import opened, predicted_table, write_tables
from monox_kit.progress import Progress, Silent
from monox_kit.stage import RUN_FILE, is_finished, read_record, work_folder

# Rows of a part: what an interruption loses at most, and what is in memory at once.
PART_ROWS = 4096
_RECORD_SUFFIX = ".run.json"


def predict(
    config: PredictConfig, out: Path, *, progress: Progress | None = None
) -> PredictSummary:
    """Write the predictions for every row of some files to the file `out`.

    The input is checked whole before the model runs. Run again after an interruption, it goes on
    behind the last finished part; run again when it has finished, it returns at once.

    Args:
        config: what is predicted with what.
        out: the file to write; beside it stands `OUT.run.json`, which says what made it.
        progress: where progress is reported.

    Raises:
        ConfigError: something else stands at `out`, or another run's output.
        MonoxError: by kind, see `monox_kit.errors`.
    """
    progress = progress or Silent()
    config.output_format(out)
    if out.is_dir():
        raise ConfigError(f"{out}: expected a file to write, found a folder. Give a file name.")
    corpus = Corpus(config.input, progress)
    model = opened(config, progress)
    make_folder(out.absolute().parent)
    with owned_folder(out):
        scan = corpus.scan(progress=progress, mark_every=PART_ROWS)
        model.loaded.folder.require_pairs(scan.has_pairs, ", ".join(corpus.files))
        run = _Run(config, corpus, scan, model, out)
        return run.finished() or run.predict(progress)


class _Run:
    """One run into a file: its fingerprint, its parts and its end."""

    def __init__(
        self, config: PredictConfig, corpus: Corpus, scan: CorpusSummary, model: Model, out: Path
    ) -> None:
        self._config = config
        self._corpus = corpus
        self._scan = scan
        self._model = model
        self._out = out
        self._format = config.output_format(out)
        self._parts = out.absolute().parent / f".{out.name}.parts"
        self._record = out.with_name(out.name + _RECORD_SUFFIX)
        folder = model.loaded.folder
        self._fingerprint = {
            "command": "predict",
            "model_digest": folder.model_digest,
            "tokenizer_digest": folder.tokenizer_digest,
            **model.loaded.tokenizer.fingerprint(),
            "backend": model.loaded.backend,
            "provider": config.provider,
            "max_length": model.loaded.tokenizer.max_length,
            **long_field(model.loaded.tokenizer.long),
            "corpus_digest": scan.digest,
            "languages": list(corpus.languages),
            "labels": model.labels.fingerprint,
            "format": self._format,
            "text": config.text,
            "probabilities": config.probabilities,
            "logits": config.logits,
            **calibration_field(folder.record),
        }

    def finished(self) -> PredictSummary | None:
        """The summary of the same run where it has finished; None where there is work to do.

        Raises:
            ConfigError: something else stands at the output, or another run's output.
            StorageError: its record cannot be read.
        """
        if (self._parts / RUN_FILE).is_file():
            return None
        kept = read_record(self._record) if self._record.is_file() else {}
        if not is_finished(self._out, kept.get("run"), self._fingerprint):
            return None
        summary = kept["summary"]
        if digest_file(self._out) != summary["digest"]:
            raise ConfigError(
                f"{self._out}: the file is not as {self._record.name} records it: it was changed "
                "since. Move it away, then run again."
            )
        remove_folder(self._parts)  # a kill while it was removed may have left some of it
        return PredictSummary(**{**summary, "path": str(self._out), "reused": True})

    def predict(self, progress: Progress) -> PredictSummary:
        """Predict the parts that are missing, then put all of them together."""
        import pyarrow.parquet as pq

        work_folder(self._parts, self._fingerprint)
        num_parts, num_rows = len(self._scan.marks), self._scan.num_rows
        missing = [at for at in range(num_parts) if not self._part(at).is_file()]
        resumed = num_rows - sum(map(self._part_rows, missing))
        truncation = Truncation()
        with progress.task("predicting", num_rows, "rows", done=resumed) as task:
            for at in missing:
                documents = self._read_part(at)
                scored = self._model.score(documents, batch_tokens=self._config.batch_tokens)
                truncation += scored.truncation
                table = predicted_table(
                    self._model,
                    documents,
                    scored.logits,
                    self._config,
                    has_pairs=self._scan.has_pairs,
                )
                with new_file(self._part(at)) as stream:
                    pq.write_table(table, stream)
                task.advance(len(documents))
        truncation.tell(progress, self._model.loaded.tokenizer.max_length)
        counts: Counter[str] = Counter()
        tables = self._tables(num_parts, counts)
        write_tables(tables, self._out, self._format, self._model.labels)
        summary = PredictSummary(
            path=str(self._out),
            format=self._format,
            num_rows=num_rows,
            num_resumed_rows=resumed,
            labels=dict(counts.most_common()),
            digest=digest_file(self._out),
            truncation=truncation.to_json(),
        )
        write_json(self._record, {"run": self._fingerprint, "summary": asdict(summary)})
        remove_folder(self._parts)
        return summary

    def _part(self, at: int) -> Path:
        return self._parts / f"{at:09d}.parquet"

    def _part_rows(self, at: int) -> int:
        return min(PART_ROWS, self._scan.num_rows - at * PART_ROWS)

    def _tables(self, num_parts: int, counts: Counter[str]) -> Iterator[Any]:
        """The tables of all parts in order; their labels are added to `counts`."""
        import pyarrow.parquet as pq

        for at in range(num_parts):
            table = pq.read_table(self._part(at))
            for label in table["label"].to_pylist():
                counts.update((label,) if isinstance(label, str) else label)
            yield table

    def _read_part(self, at: int) -> list[Document]:
        """The documents of a part, which must be those of the scan.

        Raises:
            CorpusError: the input has changed since.
        """
        mark, num_rows = self._scan.marks[at], self._part_rows(at)
        skipped = at * PART_ROWS - mark.place.row
        documents = islice(self._corpus.with_languages(mark.place), skipped, skipped + num_rows)
        found, digest = [], DocumentDigest()
        for document, language in documents:
            digest.add_document(document)
            found.append(replace(document, lang=language))
        if digest.hexdigest() != mark.digest:
            raise CorpusError(
                f"{', '.join(self._corpus.files)}: the input changed while it was predicted: rows "
                f"{at * PART_ROWS} to {at * PART_ROWS + num_rows - 1} are not those that were "
                "checked before. Run again with another output."
            )
        return found
