"""One training run: what it is made from, its checkpoints and its finished folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from monox_kit.corpora.marks import DocumentDigest
from monox_kit.data import Document
from monox_kit.digest import digest_json
from monox_kit.durable import new_folder, resolved
from monox_kit.errors import ConfigError
from monox_kit.foreign import stored_name, stored_names
from monox_kit.locks import owned_folder
from monox_kit.models.folder import (
    BundleRecord,
    ModelFolder,
    content_digests,
    open_folder,
    write_record,
)
from monox_kit.models.load import needs_equal_lengths, open_tokenizer
from monox_kit.models.long_texts import LONG_KEY, long_field, long_of, require_trainable
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import TorchClassifier, new_classifier, save_classifier
from monox_kit.progress import Progress
from monox_kit.training.card import model_card
from monox_kit.training.checkpoint import Checkpoints
from monox_kit.training.config import DEV, LoopConfig
from monox_kit.training.evaluate import DevConfig, DevSets
from monox_kit.training.log import LOG_FILE
from monox_kit.training.loop import FitResult, Trainer, resolve_precision
from monox_kit.training.methods import Sources, Task, build_task
from monox_kit.training.optimizer import embedding_mode
from monox_kit.training.origin import Origin, StoreOrigin, TranslationOrigin
from monox_kit.training.processes import is_first
from monox_kit.training.summary import TrainingSummary, finished_run
from monox_kit.training.teachers import StoredTeacher
from monox_kit.training.translations import TranslationConfig, Translations

# Options that change nothing in the trained weights.
_FREE = ("checkpoint_every", "tensorboard", "workers")


class Prepared(NamedTuple):
    """What a run has opened and checked before it trains."""

    dev: DevSets
    folder: ModelFolder
    task: Task
    tokenizer: Tokenizer
    origin: Origin
    fingerprint: dict[str, Any]


class TrainingRun:
    """One training run: its fingerprint, its checkpoints and its finished folder."""

    def __init__(
        self,
        *,
        command: str,
        method: str,
        model: str,
        dev: DevConfig,
        loop: LoopConfig,
        out: Path,
        sources: Sources,
        new_head: bool = False,
        translations: TranslationConfig | None = None,
    ) -> None:
        self._new_head, self._translations = new_head, translations
        self._command, self._method, self._model, self._loop = command, method, model, loop
        self._dev_config, self._out, self._sources = dev, resolved(out), sources

    def prepared(self, progress: Progress) -> Prepared:
        """The inputs opened and checked, and the run's fingerprint; nothing is written."""
        stores = [StoreOrigin.of(store) for store in self._sources.stores]
        spoken = sorted({tag for store in stores for tag in store.languages})
        dev = self._dev_config.read(
            self._sources.labels, self._sources.labelled, progress, store_languages=spoken
        )
        folder = open_folder(self._model, progress).named(self._dev_config.dev.label_names)
        task = build_task(self._method, self._sources)
        if any(
            (document.text_pair is not None) != task.rows.has_pairs
            for documents in dev.documents.values()
            for document in documents
        ):
            raise ConfigError(
                "`dev`, `report_dev`: one of them and the training rows has single texts, the "
                "other pairs. Check the columns of both."
            )
        tokenizer = open_tokenizer(folder, self._loop.max_length, self._loop.long)
        require_trainable(tokenizer.long)
        self._require_read_alike(tokenizer)
        task, translated = self._translated(task, progress)
        origin = self._origin(dev, stores, translated)
        fingerprint = self._fingerprint(folder, origin, tokenizer, task)
        return Prepared(dev, folder, task, tokenizer, origin, fingerprint)

    def _translated(self, task: Task, progress: Progress) -> tuple[Task, TranslationOrigin | None]:
        """The task whose rows are read as translations, as far as they are asked for."""
        if self._translations is None:
            return task, None
        found = Translations(self._translations, task.rows, progress)
        settings = {"translations_digest": found.digest, "translation_share": found.share}
        task = replace(
            task,
            rows=task.rows.read_as(found),
            counts={**task.counts, **found.counts},
            settings={**task.settings, **settings},
        )
        return task, TranslationOrigin(
            name=stored_names(", ".join(self._translations.files.paths)),
            digest=found.digest,
            share=found.share,
            languages=found.languages,
        )

    def execute(self, progress: Progress) -> TrainingSummary:
        """Train, or return what an earlier equal run left."""
        dev, folder, task, tokenizer, origin, fingerprint = self.prepared(progress)
        # Of several processes the first alone writes.
        with owned_folder(self._out) if is_first() else nullcontext():
            checkpoints = Checkpoints(
                self._out.parent / f"{self._out.name}.checkpoints", fingerprint
            )
            finished = finished_run(self._out, fingerprint)
            if finished is not None:
                if is_first():
                    checkpoints.remove(progress)  # a kill between commit and clean-up left them
                return finished
            started = time.perf_counter()
            model = new_classifier(
                folder, self._sources.labels, self._loop.seed, new_head=self._new_head
            )
            classifier = TorchClassifier(model, self._sources.labels)
            trainer = Trainer(
                model=model,
                tokenizer=tokenizer,
                labels=self._sources.labels,
                rows=task.rows,
                loss=task.loss,
                dev=dev,
                config=self._loop,
                checkpoints=checkpoints,
                progress=progress,
                equal_lengths=needs_equal_lengths(folder, classifier, tokenizer, is_fp32=True),
            )
            result = trainer.fit(f"{self._command} ({self._method})")
            summary = self._summary(task, dev, result, time.perf_counter() - started)
            if not is_first():
                return summary
            with new_folder(self._out) as building:
                save_classifier(model, tokenizer, building)
                record = BundleRecord(
                    labels=self._sources.labels,
                    max_length=tokenizer.max_length,
                    backend="torch",
                    precision="fp32",
                    has_pairs=task.rows.has_pairs,
                    long=tokenizer.long,
                    truncation_side=tokenizer.truncation_side,
                    padding_side=tokenizer.padding.side,
                    provenance={
                        "model": stored_name(self._model),
                        "origin": origin.to_json(),
                        "run": fingerprint,
                        "summary": summary.to_record(),
                        "content": content_digests(building),
                    },
                )
                card = model_card(self._model, summary, origin, fingerprint)
                write_record(building, record, card)
                shutil.copyfile(checkpoints.log_path, building / LOG_FILE)
            checkpoints.remove(progress)
            return summary

    def _require_read_alike(self, tokenizer: Tokenizer) -> None:
        """Check that the teachers read of long texts what the student does, unless it was told to.

        Raises:
            ConfigError: a store was labelled otherwise.
        """
        if self._loop.long is not None:
            return
        for store in self._sources.stores:
            fingerprint = store.manifest.fingerprint
            found = long_of(fingerprint)
            # Of answers in files nobody knows what they were given to.
            if found != tokenizer.long and "answers" not in fingerprint:
                raise ConfigError(
                    f"`store` {store.folder}: its teacher read long texts as `long` {found}, and "
                    f"the student would read them as {tokenizer.long}. Give `long` to say what the "
                    "student is to read; it may be another than the teacher's."
                )

    def _fingerprint(
        self, folder: ModelFolder, origin: Origin, tokenizer: Tokenizer, task: Task
    ) -> dict[str, Any]:
        """Everything that the trained weights depend on, flat."""
        loop = asdict(self._loop)
        loop["max_length"] = tokenizer.max_length
        loop["precision"] = resolve_precision(self._loop)
        loop["device"] = self._loop.device.partition(":")[0]
        loop["embeddings"] = embedding_mode(self._loop)
        for name in (*_FREE, LONG_KEY, *_idle(self._loop)):
            del loop[name]
        sources = self._sources
        return {
            "command": self._command,
            "method": self._method,
            "model_digest": folder.model_digest,
            "tokenizer_digest": folder.tokenizer_digest,
            **tokenizer.fingerprint(),
            "labels": sources.labels.fingerprint,
            "labelled_digest": origin.labelled_digest,
            **{
                f"{name}_digest" if name == DEV else f"report_dev_{name}_digest": digest
                for name, digest in origin.dev_digests.items()
            },
            "select_on": ", ".join(origin.select_on),
            "stores": digest_json([store.digest for store in origin.stores]),
            "store_weights": _weights(sources.teachers),
            # Runs of earlier versions do not have it.
            **({"new_head": True} if self._new_head else {}),
            **task.settings,
            **loop,
            **long_field(tokenizer.long),
        }

    def _origin(
        self, dev: DevSets, stores: Sequence[StoreOrigin], translated: TranslationOrigin | None
    ) -> Origin:
        """What the model card says it was made from."""
        sources = self._sources
        learned_from = () if self._method == "kd" else sources.labelled
        return Origin(
            labelled_name=stored_names(sources.labelled_name) if learned_from else "",
            num_labelled=len(learned_from),
            labelled_digest=_digest_documents(learned_from),
            dev_names={DEV: stored_names(", ".join(self._dev_config.dev.paths))},
            dev_digests={
                name: _digest_documents(documents) for name, documents in dev.documents.items()
            },
            select_on=dev.select_on,
            dev_language=dev.language,
            labelled_languages=dev.labelled_languages,
            stores=stores,
            translations=translated,
        )

    def _summary(
        self, task: Task, dev: DevSets, result: FitResult, trained_s: float
    ) -> TrainingSummary:
        return TrainingSummary(
            path=self._out,
            method=self._method,
            counts=dict(task.counts),
            num_steps=result.num_steps,
            dev_accuracy=result.best_sets[DEV].get("accuracy"),
            dev_micro_f1=result.best_sets[DEV].get("micro_f1"),
            dev_loss=result.best_sets[DEV]["loss"],
            best_step=int(result.best["step"]),
            history=[dict(entry) for entry in result.history],
            precision=result.precision,
            trained_s=round(trained_s, 2),
            reused=False,
            stopped_early=result.stopped_early,
            selected_on=list(dev.select_on),
            dev_sets=result.best_sets,
            classes=task.classes,
            truncation=result.truncation,
        )


def _idle(loop: LoopConfig) -> Iterator[str]:
    """Settings in whose place another one counts."""
    if loop.max_steps is not None:
        yield "epochs"
    if loop.batch_tokens is not None:
        yield "batch_size"


def _weights(teachers: Sequence[StoredTeacher]) -> list[float] | None:
    """The stores' weights where they are averaged; None where each is a teacher of its own."""
    return next((list(each.weights) for each in teachers if len(each.stores) > 1), None)


def _digest_documents(documents: Sequence[Document]) -> str:
    digest = DocumentDigest()
    for document in documents:
        digest.add_document(document)
    return digest.hexdigest()
