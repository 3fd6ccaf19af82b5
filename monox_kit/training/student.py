"""One objective's run: stores and labelled text opened, ready to train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from monox_kit.corpora.classes import class_notes
from monox_kit.corpora.corpus import Corpus, CorpusConfig, read_labelled
from monox_kit.corpora.languages import told_of
from monox_kit.corpora.paths import HubDataset, resolve_paths
from monox_kit.data import Document, LabelSet
from monox_kit.errors import ConfigError
from monox_kit.progress import Progress
from monox_kit.store import LogitStore
from monox_kit.training.config import StudentConfig
from monox_kit.training.evaluate import DevConfig
from monox_kit.training.methods import Sources
from monox_kit.training.summary import TrainingSummary
from monox_kit.training.teachers import StoredTeacher
from monox_kit.training.training_run import TrainingRun
from monox_kit.training.translations import TranslationConfig

LABELS_FILE = "labels.json"
TRANSLATION_SHARE = 0.5


def student_run(config: StudentConfig, out: Path, progress: Progress) -> TrainingRun:
    """The run of one objective: `ce`, `pl` or `kd`. Stores and labelled text are opened, no more.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    if config.combine == "average" and len(config.store) < 2:
        raise ConfigError(
            f"`combine` average: expected at least 2 stores, found {len(config.store)}. Give the "
            "others too, or leave it out."
        )
    stores = tuple(LogitStore.open(path, verify="read") for path in config.store)
    labels = LabelSet.read(config.labels) if config.labels else None
    for path, store in zip(config.store, stores):
        labels = labels or store.labels
        store.labels.require_equal(labels, str(path), str(config.labels or config.store[0]))
    labelled: list[Document] = []
    if config.labelled is not None:
        labels = labels or labels_for(None, config.labelled, progress)
        labelled = read_labelled(config.labelled, labels, progress)
        if config.method == "kd":
            progress.note(
                "`method` kd learns from the stores alone; `labelled` serves to check labels and "
                "language"
            )
    name = corpus_name(config.labelled) if config.labelled else ""
    if labels is None and not labelled:
        raise ConfigError(
            f"`method` {config.method}: it needs gold-labelled text or a logit store. Give "
            "`labelled` FILE or `store` DIR."
        )
    labels = labels or LabelSet.from_documents(labelled, name)
    if labelled:
        for note in class_notes(labelled, labels, name):
            progress.note(note)
    if config.combine == "average" and stores:
        teachers = [StoredTeacher(stores, config.store_weight)]
    else:
        teachers = [StoredTeacher([store]) for store in stores]
    return TrainingRun(
        command="train-student",
        method=config.method,
        model=config.model,
        dev=DevConfig(config.dev, _reported(config), config.select_on),
        loop=config.loop,
        out=out,
        sources=Sources(labels, labelled, name, teachers, config.objective),
        new_head=config.new_head,
        translations=_translations(config),
    )


def _reported(config: StudentConfig) -> CorpusConfig | None:
    """`report_dev`, without what `language` says of translations."""
    reported, texts = config.report_dev, config.translations
    if reported is None or texts is None:
        return reported
    theirs = told_of(texts.language, Corpus(texts).files)
    ours = told_of(reported.language, Corpus(reported).files)
    kept = tuple(one for one in reported.language if one in ours or one not in theirs)
    return replace(reported, language=kept)


def _translations(config: StudentConfig) -> TranslationConfig | None:
    """The translations that are asked for, and how often one is read."""
    if config.translations is None:
        return None
    return TranslationConfig(
        files=config.translations,
        share=config.translation_share or TRANSLATION_SHARE,
        seed=config.loop.seed,
    )


def train_objective(config: StudentConfig, out: Path, *, progress: Progress) -> TrainingSummary:
    """Train with one objective, `ce`, `pl` or `kd`, into the model folder `out`.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    return student_run(config, out, progress).execute(progress)


def labels_for(path: Path | None, corpus: CorpusConfig, progress: Progress) -> LabelSet | None:
    """The label set at `path`, else of the corpus's `label_names`, else beside its first file.

    None where there is none of these.

    Beside what is not a local file it is not looked for, which a note says.
    """
    if path is not None:
        return LabelSet.read(path)
    if corpus.label_names:
        return LabelSet(corpus.label_names)
    first = resolve_paths(corpus.paths)[0]
    if isinstance(first, HubDataset) or first.filesystem is not None:
        progress.note(
            f"{first.name}: {LABELS_FILE} is looked for "
            "beside local files alone; the classes are the labels that occur. Give `labels` FILE "
            "for others, or for another order"
        )
        return None
    beside = Path(first.location).parent / LABELS_FILE
    if not beside.is_file():
        return None
    labels = LabelSet.read(beside)
    progress.note(
        f"{beside}: the {len(labels)} classes are those of this file, which stands beside the "
        "training text; `labels` names another one"
    )
    return labels


def corpus_name(corpus: CorpusConfig) -> str:
    """What messages call a corpus: its paths."""
    return ", ".join(corpus.paths)
