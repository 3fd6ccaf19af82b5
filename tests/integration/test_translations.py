"""Students that read translations of their rows: joined by id, resumed to the bit, and told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.digest import digest_file
from monox_kit.errors import ConfigError, CorpusError, OtherRun
from monox_kit.evaluation import EvaluateConfig, evaluate
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.labelling import LabelConfig, label_corpus
from monox_kit.models.folder import BundleRecord
from monox_kit.store import LogitStore
from monox_kit.training.config import LoopConfig, ObjectiveConfig, StudentConfig
from monox_kit.training.rows import LabelledRows, SoftRows, TrainingRows
from monox_kit.training.run import train_student
from monox_kit.training.student import student_run
from monox_kit.training.teachers import StoredTeacher
from monox_kit.training.translations import TranslationConfig, Translations, drawn
from tests.notes import Notes
from tests.stopped_training import Killed, before_step, kill
from tests.tiny_models import (
    bert_classifier,
    bert_encoder,
    corpus_of,
    labelled_rows,
    weights,
    write_jsonl,
)

LOOP = LoopConfig(
    max_steps=8, batch_size=8, learning_rate=5e-3, max_length=16, checkpoint_every=2,
    embeddings="frozen",
)  # fmt: skip
ROWS = labelled_rows(30, seed=3)


def translated(
    rows: Iterable[dict[str, str]], lang: str, *, note: str = ""
) -> list[dict[str, str]]:
    """Rows under their ids in what stands for another language."""
    return [{"id": row["id"], "text": f"{lang}{note} {row['text']}", "lang": lang} for row in rows]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_jsonl(folder / "rows.jsonl", [{**row, "lang": "en"} for row in ROWS])
    write_jsonl(folder / "dev.jsonl", [{**row, "lang": "en"} for row in labelled_rows(9, seed=2)])
    strangers = labelled_rows(3, seed=9)
    for at, row in enumerate(strangers):
        row["id"] = f"stranger-{at}"
    write_jsonl(folder / "texts.de.jsonl", translated([*ROWS[:20], *strangers], "de"))
    write_jsonl(folder / "texts.fr.jsonl", translated(ROWS[10:15], "fr"))
    bert_encoder(folder / "encoder")
    bert_classifier(folder / "teacher")
    corpus = corpus_of(folder / "rows.jsonl")
    config = LabelConfig(teacher="torch", model=str(folder / "teacher"), corpus=corpus)
    label_corpus(config, folder / "store")
    return folder


def config_of(files: Path, **changes: Any) -> StudentConfig:
    config = StudentConfig(
        model=str(files / "encoder"),
        method="kd",
        store=(files / "store",),
        dev=corpus_of(files / "dev.jsonl"),
        translations=corpus_of(files / "texts.de.jsonl", files / "texts.fr.jsonl"),
        loop=LOOP,
    )
    return replace(config, **changes)


def rows_of(files: Path, *stores: Path) -> TrainingRows:
    opened = [LogitStore.open(store) for store in stores or (files / "store",)]
    return TrainingRows([SoftRows(StoredTeacher([store]), None, 0.1) for store in opened])


def joined(rows: TrainingRows, *paths: Path, share: float = 0.5, **corpus: Any) -> Translations:
    files = CorpusConfig(paths=tuple(map(str, paths)), **corpus)
    return Translations(TranslationConfig(files=files, share=share, seed=1), rows, Notes())


class TestTheJoin:
    def test_everything_is_counted(self, files: Path) -> None:
        found = joined(rows_of(files), files / "texts.de.jsonl", files / "texts.fr.jsonl")
        assert found.languages == {"de": 20, "fr": 5}
        assert found.counts == {
            "translations": 28,
            "translated_rows": 20,
            "rows_with_several_translations": 5,
            "translations_of_no_row": 3,
            "translations_in_the_language_of_their_row": 0,
            "rows_with_an_id_of_other_texts": 0,
            "rows_without_a_translation": 10,
        }

    def test_rows_keep_their_targets_and_all_translations_are_read(self, files: Path) -> None:
        plain = rows_of(files)
        rows = plain.read_as(
            joined(plain, files / "texts.de.jsonl", files / "texts.fr.jsonl", share=1.0)
        )
        every = np.arange(len(rows))
        own, _, expected = plain.batch(every)
        read: dict[int, set[str]] = {row: set() for row in every.tolist()}
        for epoch in range(30):
            texts, _, targets = rows.batch(every, epoch)
            assert targets.teacher.tolist() == expected.teacher.tolist()
            for row, text in enumerate(texts):
                read[row].add(text)
        for row, text in enumerate(own):
            if row < 10:
                assert read[row] == {f"de {text}"}
            elif row < 15:
                assert read[row] == {f"de {text}", f"fr {text}"}
            elif row < 20:
                assert read[row] == {f"de {text}"}
            else:
                assert read[row] == {text}

    def test_the_order_of_the_files_rows_and_the_window_change_nothing(self, files: Path) -> None:
        rows = rows_of(files).read_as(joined(rows_of(files), files / "texts.de.jsonl"))
        every = np.arange(len(rows))
        whole = rows.batch(every, 3)[0]
        mixed = np.random.default_rng(1).permutation(every)
        assert rows.batch(mixed, 3)[0] == [whole[row] for row in mixed]
        assert [rows.batch(every[at : at + 1], 3)[0][0] for at in every] == whole

    def test_a_translation_in_the_rows_own_language_is_not_read(
        self, files: Path, tmp_path: Path
    ) -> None:
        texts = write_jsonl(tmp_path / "texts.jsonl", [
            *translated(ROWS[:4], "en", note="!"), *translated(ROWS[:2], "ja"),
        ])  # fmt: skip
        found = joined(rows_of(files), texts)
        assert found.languages == {"ja": 2}
        assert found.counts["translations_in_the_language_of_their_row"] == 4

    def test_an_id_of_two_texts_in_one_language_has_no_translation(
        self, files: Path, tmp_path: Path
    ) -> None:
        twice = [{**row, "lang": "en"} for row in ROWS]
        twice[1] = {**twice[1], "id": ROWS[0]["id"]}  # another text
        twice[3] = {**twice[2]}  # the same document again
        write_jsonl(tmp_path / "twice.jsonl", twice)
        config = LabelConfig(
            teacher="torch",
            model=str(files / "teacher"),
            corpus=corpus_of(tmp_path / "twice.jsonl"),
        )
        label_corpus(config, tmp_path / "store")
        rows = rows_of(files, tmp_path / "store")
        found = joined(rows, files / "texts.de.jsonl", share=1.0)
        assert found.counts["rows_with_an_id_of_other_texts"] == 2
        texts = rows.read_as(found).batch(np.arange(4), 0)[0]
        own = [row["text"] for row in (ROWS[0], ROWS[1], ROWS[2], ROWS[2])]
        assert texts == [own[0], own[1], f"de {own[2]}", f"de {own[3]}"]

    def test_gold_labelled_rows_are_joined_too(self, files: Path) -> None:
        documents = student_run(config_of(files), files / "out", Notes())._sources.labelled
        assert documents == []
        from monox_kit.corpora.corpus import read_labelled

        labelled = read_labelled(corpus_of(files / "rows.jsonl"))
        labels = LogitStore.open(files / "store").labels
        rows = TrainingRows([LabelledRows(labelled, labels, "rows")])
        assert joined(rows, files / "texts.fr.jsonl").counts["translated_rows"] == 5


class TestWhatIsRefused:
    def test_ids_of_no_row(self, files: Path, tmp_path: Path) -> None:
        texts = write_jsonl(tmp_path / "a.de.jsonl", [{"id": "nobody", "text": "x"}])
        with pytest.raises(ConfigError, match=r"none of 1 translations .*'nobody'"):
            joined(rows_of(files), texts)

    def test_rows_whose_ids_are_their_numbers(self, files: Path, tmp_path: Path) -> None:
        plain = [{"text": row["text"]} for row in ROWS]
        write_jsonl(tmp_path / "plain.jsonl", plain)
        config = LabelConfig(
            teacher="torch",
            model=str(files / "teacher"),
            corpus=corpus_of(tmp_path / "plain.jsonl"),
        )
        label_corpus(config, tmp_path / "store")
        texts = write_jsonl(tmp_path / "a.de.jsonl", [{"id": "3", "text": "x"}])
        with pytest.raises(ConfigError, match="have no ids but their numbers"):
            joined(rows_of(files, tmp_path / "store"), texts)

    def test_a_translation_without_an_id(self, files: Path, tmp_path: Path) -> None:
        texts = write_jsonl(tmp_path / "a.de.jsonl", [{"id": "", "text": "x"}])
        with pytest.raises(CorpusError, match=r"a\.de\.jsonl, line 1: expected an id in .*'id'"):
            joined(rows_of(files), texts)
        texts = write_jsonl(tmp_path / "b.de.jsonl", [{"text": "x"}])
        with pytest.raises(CorpusError, match=r"b\.de\.jsonl.*'id'.*`id_column`"):
            joined(rows_of(files), texts)
        (tmp_path / "c.de.txt").write_text("x\n")
        with pytest.raises(CorpusError, match=r"c\.de\.txt"):
            joined(rows_of(files), tmp_path / "c.de.txt")

    def test_a_translation_without_a_language(self, files: Path, tmp_path: Path) -> None:
        texts = write_jsonl(tmp_path / "a.jsonl", [{"id": ROWS[0]["id"], "text": "x"}])
        with pytest.raises(CorpusError, match=r"a\.jsonl, row 0 .*does not name its language"):
            joined(rows_of(files), texts)
        assert joined(rows_of(files), texts, language=(f"{texts}=ja",)).languages == {"ja": 1}

    def test_pairs_for_single_texts(self, files: Path, tmp_path: Path) -> None:
        pair = {"id": ROWS[0]["id"], "text": "x", "text_pair": "y", "lang": "de"}
        with pytest.raises(CorpusError, match=r"it is a pair, and the training rows are single"):
            joined(rows_of(files), write_jsonl(tmp_path / "a.jsonl", [pair]))

    def test_settings_that_would_change_nothing(self, files: Path) -> None:
        with pytest.raises(ConfigError, match=r"`translation_share` 0\.25: it needs"):
            config_of(files, translations=None, translation_share=0.25)
        with pytest.raises(ConfigError, match="`translations`"):
            config_of(files, method="self-training", store=())


def test_the_share_of_visits_is_what_was_asked_for() -> None:
    rows = np.arange(200_000)
    for share in (0.25, 0.9):
        is_read, draws = drawn(rows, seed=1, epoch=0, share=share)
        assert is_read.mean() == pytest.approx(share, abs=0.005)
        counts = Counter((draws[is_read] % np.uint64(3)).tolist())
        assert all(n / is_read.sum() == pytest.approx(1 / 3, abs=0.01) for n in counts.values())
    again, _ = drawn(rows[::-1], seed=1, epoch=0, share=0.9)
    assert (again[::-1] == is_read).all()
    for seed, epoch in ((1, 1), (2, 0)):  # other rows in other epochs and runs
        other, _ = drawn(rows, seed=seed, epoch=epoch, share=0.25)
        assert 0.05 < (other & drawn(rows, seed=1, epoch=0, share=0.25)[0]).mean() < 0.08
    assert drawn(rows, seed=1, epoch=0, share=1.0)[0].all()


@pytest.mark.parametrize("stop_at", [1, 5])
def test_a_killed_run_ends_with_the_same_bits(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Killed within the first and the second epoch (4 steps each), and read ahead by threads."""
    config = config_of(files, translation_share=0.75)
    whole = train_student(config, tmp_path / "whole")
    assert whole.counts["translated_rows"] == 20
    with monkeypatch.context() as patch:
        before_step(patch, stop_at, kill)
        with pytest.raises(Killed):
            train_student(config, tmp_path / "killed")
    ahead = replace(config, loop=replace(LOOP, workers=2))
    train_student(ahead, tmp_path / "killed")
    assert digest_file(tmp_path / "killed" / "model.safetensors") == digest_file(
        tmp_path / "whole" / "model.safetensors"
    )
    assert train_student(config, tmp_path / "whole").reused


def test_other_translations_are_another_run_and_none_the_run_of_before(
    files: Path, tmp_path: Path
) -> None:
    plain = config_of(files, translations=None)
    train_student(plain, tmp_path / "plain")
    run = BundleRecord.read(tmp_path / "plain" / "monoxkit.json").provenance["run"]
    assert not [key for key in run if "translation" in key]
    train_student(config_of(files), tmp_path / "out")
    assert not np.array_equal(
        *(next(iter(weights(tmp_path / name).values())) for name in ("plain", "out"))
    ) or digest_file(tmp_path / "plain" / "model.safetensors") != digest_file(
        tmp_path / "out" / "model.safetensors"
    )
    for changed in (
        config_of(files, translation_share=0.25),
        config_of(files, translations=corpus_of(files / "texts.de.jsonl")),
        plain,
    ):
        with pytest.raises(OtherRun, match="translation"):
            train_student(changed, tmp_path / "out")


def test_the_card_says_that_results_are_not_zero_shot_and_evaluate_marks_them(
    files: Path, tmp_path: Path
) -> None:
    train_student(config_of(files), tmp_path / "student")
    card = (tmp_path / "student" / "README.md").read_text()
    assert "Text in de, fr was learned from" in card
    assert "results in these languages are not zero-shot" in card
    assert "50 % of the visits read it (de 20, fr 5)" in card
    assert "The stores hold text in en." in card
    record = BundleRecord.read(tmp_path / "student" / "monoxkit.json")
    assert record.seen_languages == ("de", "fr")
    for tag in ("de", "ja", "en"):
        rows = [{**row, "lang": tag} for row in labelled_rows(9, seed=5)]
        write_jsonl(tmp_path / f"test.{tag}.jsonl", rows)
    test = CorpusConfig(paths=(str(tmp_path / "test.*.jsonl"),))
    export_model(ExportConfig(model=str(tmp_path / "student"), max_length=16), tmp_path / "bundle")
    for name in ("student", "bundle"):
        report = evaluate(EvaluateConfig(model=str(tmp_path / name), test=test, num_resamples=100))
        assert report.seen_languages == ("de",)
        assert json.loads(json.dumps(report.to_json()))["seen_languages"] == ["de"]


def test_a_dev_set_in_a_language_of_no_store_is_told(files: Path, tmp_path: Path) -> None:
    german = [{**row, "lang": "de"} for row in labelled_rows(9, seed=2)]
    dev = corpus_of(write_jsonl(tmp_path / "dev.jsonl", german))
    notes = Notes()
    config = config_of(files, dev=dev, translations=None, loop=replace(LOOP, max_steps=1))
    train_student(config, tmp_path / "out", progress=notes)
    assert any("`dev` is in de, and the stores hold text in en" in note for note in notes.notes)
    assert "The stores hold text in en." in (tmp_path / "out" / "README.md").read_text()


def test_rows_that_are_not_learned_from_have_no_translations(files: Path, tmp_path: Path) -> None:
    store = LogitStore.open(files / "store")
    confidence = store.manifest.problem.confidence(store.logits(slice(None)))
    least = float(np.median(confidence))
    config = config_of(files, objective=ObjectiveConfig(min_confidence=least))
    summary = train_student(config, tmp_path / "out")
    assert summary.counts["below_min_confidence_rows"] > 0
    unknown = summary.counts["translations_of_no_row"]
    assert unknown > 3  # the strangers, and translations of rows that were left out
