"""Self-training, the paper's MBERT-ST: the student is its own teacher, round by round.

OUT.rounds/
    run.json                what all rounds are made from
    round-00/model/         fine-tuned on the gold labels: `ce`
    round-01/store/         the unlabelled text, labelled by round 0's model
    round-01/model/         fine-tuned on gold labels and these pseudo-labels: `pl`
    round-02/store/         labelled by round 1's model, and so on
OUT/                        the model of the round with the best dev result

Every round starts from the pretrained encoder and has the whole of `max_steps` or `epochs` for
itself. So what a round got wrong does not stay in the weights of the next, which learn from its
labels alone, and the model that is kept was trained for as long as one of `ce`, `pl` or `kd` with
the same options. R rounds after the first cost R + 1 such runs; the summary counts all their steps.

Source: Chi et al. (MonoX), baseline MBERT-ST, for the alternation; Xie, Luong, Hovy, Le,
"Self-training with Noisy Student improves ImageNet classification" (2020), for new students that
start afresh. Dropout is their noise here too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.corpora.languages import told_of
from monox_kit.durable import new_folder, resolved
from monox_kit.errors import ConfigError
from monox_kit.foreign import stored_name
from monox_kit.labelling import LabelConfig, LabelSummary, label_corpus
from monox_kit.locks import owned_folder
from monox_kit.models.folder import CARD_FILE, RECORD_FILE, BundleRecord, write_record
from monox_kit.problem import measure_of
from monox_kit.progress import Progress
from monox_kit.stage import work_folder
from monox_kit.training.card import model_card
from monox_kit.training.config import DEV, ObjectiveConfig, StudentConfig
from monox_kit.training.evaluate import mean_result, rank
from monox_kit.training.origin import Origin
from monox_kit.training.processes import num_started
from monox_kit.training.student import student_run, train_objective
from monox_kit.training.summary import TrainingSummary, finished_run
from monox_kit.training.training_run import Prepared

DEFAULT_ROUNDS = 2  # after round 0; the paper does not give its own


def self_train(config: StudentConfig, out: Path, progress: Progress) -> TrainingSummary:
    """Train on gold labels, then on gold labels and the student's own, into the folder `out`.

    Run again, it goes on within the round that was interrupted. Finished rounds stay in OUT.rounds,
    which may be deleted when `out` is there.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    if num_started() > 1:
        raise ConfigError(
            f"`method` self-training: it runs in one process, and {num_started()} were started: "
            "labelling between the rounds is not shared. Start it without torchrun or accelerate "
            "launch."
        )
    out = resolved(out)
    text = _required_text(config)
    num_rounds = config.rounds or DEFAULT_ROUNDS
    ours = replace(config, method="pl", unlabelled=None, rounds=None)
    gold = replace(ours, method="ce", objective=ObjectiveConfig())
    inputs = student_run(gold, out, progress).prepared(progress)
    fingerprint = _fingerprint(config, inputs, text, num_rounds, progress)
    with owned_folder(out):
        finished = finished_run(out, fingerprint)
        if finished is not None:
            return finished
        # Another number of rounds shares them.
        shared = {key: value for key, value in fingerprint.items() if key != "rounds"}
        rounds = work_folder(out.parent / f"{out.name}.rounds", shared)
        progress.note(f"round 0 of {num_rounds}: gold labels")
        gold = _with_own_board(gold, 0)
        trained = [train_objective(gold, rounds / "round-00" / "model", progress=progress)]
        labelled: list[LabelSummary] = []
        for number in range(1, num_rounds + 1):
            folder = rounds / f"round-{number:02d}"
            progress.note(f"round {number} of {num_rounds}: gold labels, and round {number - 1}'s")
            labelling = _labelling(text, trained[-1], config.loop.device)
            labelled.append(label_corpus(labelling, folder / "store", progress=progress))
            of_round = _with_own_board(replace(ours, store=(folder / "store",)), number)
            trained.append(train_objective(of_round, folder / "model", progress=progress))
        kept = _best_round(trained)
        summary = _summary(out, trained, labelled, kept)
        _commit(trained[kept].path, summary, config.model, fingerprint)
        return summary


def _with_own_board(config: StudentConfig, number: int) -> StudentConfig:
    """A round's run with a folder of its own below that of TensorBoard: each counts its steps."""
    if config.loop.tensorboard is None:
        return config
    board = str(Path(config.loop.tensorboard) / f"round-{number:02d}")
    return replace(config, loop=replace(config.loop, tensorboard=board))


def _best_round(trained: Sequence[TrainingSummary]) -> int:
    """The first round with the best results on the dev sets that choose the weights."""
    results = [mean_result(each.dev_sets, each.selected_on) for each in trained]
    return max(range(len(trained)), key=lambda number: rank(results[number]))


def _required_text(config: StudentConfig) -> CorpusConfig:
    """The unlabelled text.

    Raises:
        ConfigError: it is missing, or the gold-labelled text is.
    """
    if config.labelled is None:
        raise ConfigError(
            "`labelled`: `method` self-training begins with gold-labelled text. Give `labelled` "
            "FILE."
        )
    if config.unlabelled is None:
        raise ConfigError(
            "`unlabelled`: `method` self-training needs text to label. Give `unlabelled` FILE."
        )
    return config.unlabelled


def _fingerprint(
    config: StudentConfig, inputs: Prepared, text: CorpusConfig, rounds: int, progress: Progress
) -> dict[str, Any]:
    """What the model depends on: all of round 0's fingerprint, and what the others add.

    Raises:
        ConfigError: single texts meet pairs.
        CorpusError: a row of the unlabelled text cannot be used.
    """
    found = Corpus(text).scan(progress=progress)
    if found.has_pairs != inputs.task.rows.has_pairs:
        raise ConfigError(
            "`unlabelled`: one of `labelled` and `unlabelled` has single texts, the other pairs. "
            "Check the columns of both."
        )
    return {
        **inputs.fingerprint,
        "method": config.method,
        "unlabelled_digest": found.digest,
        "threshold": config.objective.threshold,
        "rounds": rounds,
    }


def _labelling(text: CorpusConfig, student: TrainingSummary, device: str) -> LabelConfig:
    """How a round's student labels the text for the next, in the precision it was trained in."""
    return LabelConfig(
        teacher="torch",
        model=str(student.path),
        corpus=replace(text, language=told_of(text.language, Corpus(text).files)),
        ignore_labels=True,  # unlabelled here; a label column may be of another task
        device=device,
        precision=student.precision,  # type: ignore[arg-type]  # fp32 or bf16
    )


def _summary(
    out: Path, trained: Sequence[TrainingSummary], labelled: Sequence[LabelSummary], kept: int
) -> TrainingSummary:
    """The whole run's summary: that of the round that is kept, and a record of every round."""
    digests = [None, *(store.store_digest for store in labelled)]
    rounds = [
        {
            "round": number,
            "store_digest": digest,
            "num_rows": each.counts["gold_rows"] + each.counts.get("pseudo_labelled_rows", 0),
            "counts": dict(each.counts),
            "num_steps": each.num_steps,
            "best_step": each.best_step,
            **_dev_measure(each),
            "dev_loss": each.dev_loss,
            "trained_s": each.trained_s,
            "kept": number == kept,
        }
        for number, (each, digest) in enumerate(zip(trained, digests))
    ]
    return replace(
        trained[kept],
        path=out,
        method="self-training",
        num_steps=sum(each.num_steps for each in trained),
        history=[
            {"round": float(number), **entry}
            for number, each in enumerate(trained)
            for entry in each.history
        ],
        trained_s=round(sum(each.trained_s for each in trained), 2),
        reused=False,
        rounds=rounds,
    )


def _dev_measure(trained: TrainingSummary) -> dict[str, float]:
    """What a round's record keeps of `dev` beside the loss, by name."""
    result = trained.dev_sets[DEV]
    measure = measure_of(result)
    return {f"dev_{measure}": result[measure]}


def _commit(
    best: Path, summary: TrainingSummary, model: str, fingerprint: Mapping[str, Any]
) -> None:
    """Put the best round's model in place, with the whole run's record and card."""
    record = BundleRecord.read(best / RECORD_FILE)
    origin = record.provenance["origin"]
    provenance = {
        "model": stored_name(model),
        "origin": origin,
        "run": fingerprint,
        "summary": summary.to_record(),
        "content": record.provenance["content"],  # the same files
    }
    with new_folder(summary.path) as building:
        for path in sorted(best.iterdir()):
            if path.name not in (RECORD_FILE, CARD_FILE):
                shutil.copyfile(path, building / path.name)
        card = model_card(model, summary, Origin.from_json(origin), fingerprint)
        write_record(building, replace(record, provenance=provenance), card)
