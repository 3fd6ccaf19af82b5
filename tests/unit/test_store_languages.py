"""Stores keep each row's language: one for all, one for each row, or none; all tools see it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import monox_kit as mk
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.errors import ConfigError, StoreCorrupt, StoreMismatch
from monox_kit.labelling import LabelConfig
from monox_kit.labelling.worker import Assignment
from monox_kit.store import (
    FolderWriter,
    LogitStore,
    export_store,
    fetch_store,
    merge_stores,
    store_stats,
)
from tests.faults.damage import at, forge, set_in
from tests.object_store import object_store
from tests.store_samples import (
    FINGERPRINT,
    LANGUAGES,
    document,
    manifest,
    shard_arguments,
    tree,
    write_shard,
    write_store,
)

ROWS = range(11)
OWN = [LANGUAGES[row % len(LANGUAGES)] for row in ROWS]


def rows_at(path: Path, languages: Sequence[str | None], first: int = 0) -> str:
    """Rows with answers, each with its language where it names one."""
    lines = [
        {"id": f"k{row}", "text": f"text {row}", "said": ("games", "mail")[row % 2]}
        | ({} if tag is None else {"lang": tag})
        for row, tag in enumerate(languages, first)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)


def imported(folder: Path, *files: str, **settings: Any) -> LogitStore:
    """The store of an import, every byte of it checked."""
    labels = folder / "labels.json"
    labels.write_text('{"names": ["games", "mail"]}')
    out = settings.pop("out", folder / "store")
    given = {"origin": "rules", "labels": labels, "label_column": "said", "shard_rows": 4}
    mk.import_store(list(files), out=out, **{**given, **settings})
    return LogitStore.open(out, verify="full")


def rewritten(tmp_path: Path, name: str = "own") -> Path:
    """A store in which each row has its own language."""
    return write_store(tmp_path / name, manifest(format_version=2))


class TestWhatIsKept:
    def test_one_language_of_all_rows_stands_in_the_manifest(self, tmp_path: Path) -> None:
        store = imported(tmp_path, rows_at(tmp_path / "a.jsonl", ["de"] * 5))
        assert (store.manifest.format_version, store.manifest.language) == (1, "de")
        assert store.languages(np.array([4, 0])) == ["de", "de"]
        assert {document.lang for document in store.documents()} == {"de"}
        assert not (store.folder / "shards" / "000000" / "lang.npy").exists()

    def test_the_names_of_files_and_the_option_tell_languages(self, tmp_path: Path) -> None:
        named = rows_at(tmp_path / "a.fr.jsonl", [None, "de", None])
        told = rows_at(tmp_path / "b.jsonl", [None, None], first=3)
        store = imported(tmp_path, named, told, language=[f"{told}=ja"])
        assert store.languages(slice(None)) == ["fr", "de", "fr", "ja", "ja"]
        assert store.manifest.format_version == 2
        assert "language" not in store.manifest.fingerprint

    def test_rows_without_a_language_have_none(self, tmp_path: Path) -> None:
        store = imported(tmp_path, rows_at(tmp_path / "a.jsonl", [None] * 5))
        assert store.manifest.fingerprint["language"] is None
        assert store.manifest.format_version == 1
        mixed = rows_at(tmp_path / "b.jsonl", ["de", None, "de"])
        store = imported(tmp_path, mixed, out=tmp_path / "mixed")
        assert store.languages(slice(1, 3)) == [None, "de"]
        assert store.all_languages() == {"de": 2, None: 1}

    def test_the_digest_of_the_corpus_is_of_rows_as_they_stand(self, tmp_path: Path) -> None:
        one = imported(tmp_path, rows_at(tmp_path / "a.jsonl", [None] * 3))
        file = rows_at(tmp_path / "b.de.jsonl", [None] * 3)
        other = imported(tmp_path, file, out=tmp_path / "other")
        digests = [store.manifest.fingerprint["corpus_digest"] for store in (one, other)]
        assert digests[0] == digests[1]

    def test_a_language_for_a_file_that_is_not_read_is_refused(self, tmp_path: Path) -> None:
        file = rows_at(tmp_path / "a.jsonl", [None])
        with pytest.raises(ConfigError, match=r"`language` other\.jsonl=de"):
            imported(tmp_path, file, language=["other.jsonl=de"])

    def test_a_cluster_is_told_languages_by_absolute_paths(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        rows_at(tmp_path / "a.jsonl", [None])
        corpus = CorpusConfig(paths=("./a.jsonl",), language=("./a.jsonl=ja", "*.csv=de"))
        work = Assignment(
            config=LabelConfig(teacher="torch", model="m", corpus=corpus),
            store="s",
            manifest=manifest(),
            marks=[],
            plan=None,  # type: ignore[arg-type]  # not looked at here
            guard=None,
        )
        sent = work.for_cluster(Corpus(corpus), None)  # type: ignore[arg-type]  # of ONNX alone
        monkeypatch.chdir("/")  # where a worker starts
        assert Corpus(sent.config.corpus).languages == ("ja",)


class TestContinuing:
    def test_other_languages_are_refused_by_name(self, tmp_path: Path) -> None:
        file = rows_at(tmp_path / "a.jsonl", [None] * 3)
        imported(tmp_path, file)
        with pytest.raises(StoreMismatch, match=r"language.* was None .* is now|'de' now"):
            imported(tmp_path, file, language=[f"{file}=de"])
        assert imported(tmp_path, file).manifest.language is None

    @pytest.mark.parametrize("tags", [["de"] * 5, ["de", "fr", None, "de", "de"]])
    def test_what_0_1_0_began_is_finished_without_languages(
        self, tmp_path: Path, tags: list[str | None]
    ) -> None:
        file = rows_at(tmp_path / "a.jsonl", tags)
        new = imported(tmp_path, file)
        fingerprint = dict(new.manifest.fingerprint)
        fingerprint.pop("language", None)
        old = replace(new.manifest, format_version=1, fingerprint=fingerprint)
        with FolderWriter(tmp_path / "old", old):
            pass  # begun, and killed
        store = imported(tmp_path, file, out=tmp_path / "old")
        assert store.manifest == old
        assert store.languages(slice(None)) == [None] * 5
        assert store.logits(slice(None)).tolist() == new.logits(slice(None)).tolist()


class TestReading:
    def test_rows_come_back_in_any_order(self, tmp_path: Path) -> None:
        store = LogitStore.open(rewritten(tmp_path), verify="full")
        assert store.languages(slice(None)) == OWN
        assert store.languages(np.array([10, 3, 3])) == [OWN[10], "de", "de"]
        expected = [document(row, has_languages=True) for row in ROWS]
        assert list(store.documents()) == expected
        assert store.all_languages() == dict(Counter(OWN).most_common())
        assert store.info().has_languages

    def test_a_store_at_a_url_is_the_folder_of_it(self, tmp_path: Path) -> None:
        file = rows_at(tmp_path / "a.jsonl", ["de", "fr", None, "de", "ja", "ja"])
        local = imported(tmp_path, file)
        labels = tmp_path / "labels.json"
        with object_store():
            url = f"objects://{tmp_path}/bucket"
            mk.import_store(
                [file], out=url, origin="rules", labels=labels, label_column="said", shard_rows=4
            )
            fetch_store(url, tmp_path / "fetched")
        assert tree(tmp_path / "fetched") == tree(local.folder)

    def test_statistics_count_by_language(self, tmp_path: Path) -> None:
        found = {one.language: one for one in store_stats(rewritten(tmp_path)).languages}
        assert {tag: one.num_rows for tag, one in found.items()} == Counter(
            tag or "und" for tag in OWN
        )
        store = LogitStore.open(tmp_path / "own")
        problem, logits = store.manifest.problem, store.logits(slice(None))
        for tag, one in found.items():
            at_tag = [row for row in ROWS if (OWN[row] or "und") == tag]
            gold = store.gold(slice(None))[at_tag]
            decided = problem.decide(logits[at_tag])
            assert one.num_labelled == (gold >= 0).sum()
            assert one.num_agreeing == (gold == decided).sum()
            assert one.labels == tuple(problem.count(decided))
            assert one.mean_confidence == pytest.approx(problem.confidence(logits[at_tag]).mean())

    def test_statistics_of_a_column_of_another_meaning_stay_small(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("monox_kit.store.stats._MOST_LANGUAGES", 2)
        found = store_stats(rewritten(tmp_path)).languages
        assert sum(one.num_rows for one in found) == len(ROWS)
        assert {one.language for one in found} == {"en", "pt-BR", "other"}

    def test_an_export_has_them_and_is_read_back(self, tmp_path: Path) -> None:
        export_store(rewritten(tmp_path), tmp_path / "own.parquet")
        assert pq.read_table(tmp_path / "own.parquet")["lang"].to_pylist() == OWN
        one = write_store(tmp_path / "one", manifest(fingerprint={"language": "de"}))
        export_store(one, tmp_path / "one.parquet")
        assert pq.read_table(tmp_path / "one.parquet")["lang"].to_pylist() == ["de"] * len(ROWS)
        export_store(write_store(tmp_path / "none"), tmp_path / "none.parquet")
        assert "lang" not in pq.read_schema(tmp_path / "none.parquet").names


class TestDamage:
    @pytest.mark.parametrize("verify", ["read", "full"])
    def test_a_tag_that_is_no_text_is_told_by_shard_and_row(
        self, tmp_path: Path, verify: Any
    ) -> None:
        folder = rewritten(tmp_path)
        forge("lang.npy", at(0, 0xFF))(folder)  # shard 1: rows 4 to 7
        with pytest.raises(StoreCorrupt, match=r"shards/000001/lang\.npy: .*row 4"):
            LogitStore.open(folder, verify=verify).languages(slice(None))

    def test_offsets_that_do_not_ascend_are_told(self, tmp_path: Path) -> None:
        folder = rewritten(tmp_path)
        forge("lang_offsets.npy", at(1, 99))(folder)
        with pytest.raises(StoreCorrupt, match=r"shards/000001/lang_offsets\.npy"):
            LogitStore.open(folder, verify="full")

    def test_a_file_that_another_format_has_not_is_damage(self, tmp_path: Path) -> None:
        folder = rewritten(tmp_path)
        set_in("store.json", "format_version", to=1)(folder)
        with pytest.raises(StoreCorrupt):
            LogitStore.open(folder)


class TestMerging:
    def part(self, folder: Path, name: str, **changes: Any) -> Path:
        """A store of a corpus of its own."""
        told = changes.pop("fingerprint", {})
        fingerprint = {**FINGERPRINT, **told, "corpus_digest": name}
        return write_store(folder / name, manifest(fingerprint=fingerprint, **changes))

    def merged(self, folder: Path, *parts: Path) -> LogitStore:
        merge_stores(parts, folder / "merged", shard_rows=5)
        return LogitStore.open(folder / "merged", verify="full")

    def test_one_language_stays_one(self, tmp_path: Path) -> None:
        parts = [self.part(tmp_path, name, fingerprint={"language": "de"}) for name in "ab"]
        store = self.merged(tmp_path, *parts)
        assert (store.manifest.format_version, store.manifest.language) == (1, "de")

    def test_stores_of_0_1_0_give_what_0_1_0_gave(self, tmp_path: Path) -> None:
        store = self.merged(tmp_path, *(self.part(tmp_path, name) for name in "ab"))
        assert store.manifest.format_version == 1
        assert "language" not in store.manifest.fingerprint

    def test_several_languages_become_those_of_rows(self, tmp_path: Path) -> None:
        german = self.part(tmp_path, "a", fingerprint={"language": "de"})
        own = self.part(tmp_path, "b", format_version=2)
        old = self.part(tmp_path, "c")
        store = self.merged(tmp_path, german, own, old)
        assert store.languages(slice(None)) == ["de"] * 11 + OWN + [None] * 11
        expected = [document(row).text for row in ROWS] * 3
        assert store.texts(slice(None)) == expected

    def test_parts_of_one_store_keep_theirs(self, tmp_path: Path) -> None:
        whole = manifest(format_version=2)
        parts = [tmp_path / "a", tmp_path / "b"]
        for part, shards in zip(parts, (range(1), range(1, 3))):
            with FolderWriter(part, whole, shards) as writer:
                for shard in writer.missing:
                    write_shard(writer, shard, **shard_arguments(whole, shard))
        merge_stores(parts, tmp_path / "merged")
        assert (
            LogitStore.open(tmp_path / "merged").digest
            == LogitStore.open(rewritten(tmp_path)).digest
        )
