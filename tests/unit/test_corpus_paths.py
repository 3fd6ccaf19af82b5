"""What paths, globs, URLs and hub names stand for, and what is said where nothing is there."""

import json
import os
import sys
import types

import fsspec
import pytest
from fsspec.registry import known_implementations

from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.corpora.languages import lang_from_name
from monox_kit.errors import ConfigError, CorpusError


def corpus(*paths, **settings):
    return Corpus(CorpusConfig(paths=tuple(map(str, paths)), **settings))


def texts(*paths, **settings):
    return [document.text for document in corpus(*paths, **settings).documents()]


def write(path, text):
    path.write_text(json.dumps({"text": text}) + "\n")
    return path


class TestLocal:
    def test_a_glob_is_sorted_and_paths_keep_their_order(self, tmp_path):
        for name in ("b", "a", "c"):
            write(tmp_path / f"{name}.jsonl", name)
        (tmp_path / "folder.jsonl").mkdir()
        last = write(tmp_path / "first.json", "first")
        assert texts(last, tmp_path / "?.jsonl") == ["first", "a", "b", "c"]
        assert corpus(tmp_path / "*.jsonl").files == tuple(
            str(tmp_path / f"{name}.jsonl") for name in ("a", "b", "c")
        )

    def test_a_recursive_glob(self, tmp_path):
        (tmp_path / "x" / "y").mkdir(parents=True)
        write(tmp_path / "x" / "y" / "a.jsonl", "deep")
        write(tmp_path / "b.jsonl", "top")
        assert texts(tmp_path / "**" / "*.jsonl") == ["top", "deep"]

    @pytest.mark.parametrize("name", ["a b.jsonl", "a[1]*?.jsonl", "hub:x.jsonl", "ä#%20.jsonl"])
    def test_a_file_that_exists_is_that_file(self, tmp_path, name, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write(tmp_path / name, "this")
        write(tmp_path / "a1xx.jsonl", "not this")
        assert texts(name) == texts(tmp_path / name) == ["this"]
        assert corpus(name).files == (name,)

    def test_a_path_that_looks_like_a_url(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "s3:").mkdir()
        write(tmp_path / "s3:" / "a.jsonl", "local")
        assert texts("s3://a.jsonl") == ["local"]

    @pytest.mark.parametrize("path", ["absent.jsonl", "*.jsonl", "absent/*.jsonl", "**/x.csv"])
    def test_nothing_there(self, tmp_path, path):
        with pytest.raises(CorpusError, match=r"expected .*, found no.* Check the pa"):
            corpus(tmp_path / path)

    def test_a_folder(self, tmp_path):
        with pytest.raises(CorpusError, match=r"folder.*/\*\.jsonl'"):
            corpus(tmp_path)

    def test_a_broken_link_and_a_pipe(self, tmp_path):
        (tmp_path / "link.jsonl").symlink_to(tmp_path / "absent")
        with pytest.raises(CorpusError, match=r"link\.jsonl: .*No such file"):
            corpus(tmp_path / "link.jsonl")
        os.mkfifo(tmp_path / "pipe.jsonl")
        with pytest.raises(CorpusError, match=r"pipe\.jsonl: .*pipe"):
            corpus(tmp_path / "pipe.jsonl")

    def test_no_path(self):
        for paths in ((), ("",)):
            with pytest.raises(ConfigError, match="at least one path"):
                corpus(*paths)

    def test_a_file_named_twice(self, tmp_path):
        path = write(tmp_path / "a.jsonl", "a")
        (tmp_path / "link.jsonl").symlink_to(path)
        for again in (path, tmp_path / "*.jsonl", tmp_path / "link.jsonl"):
            with pytest.raises(ConfigError, match=r"once.*a\.jsonl"):
                corpus(path, again)

    def test_a_file_that_vanishes_before_reading(self, tmp_path):
        opened = corpus(write(tmp_path / "a.jsonl", "a"))
        (tmp_path / "a.jsonl").unlink()
        with pytest.raises(CorpusError, match=r"a\.jsonl: .*No such file"):
            next(opened.documents())


class TestFormatByName:
    def test_an_unknown_name_lists_the_known_ones(self, tmp_path):
        path = tmp_path / "a.xml.gz"
        path.write_bytes(b"")
        with pytest.raises(CorpusError, match=r"one of \.jsonl, .*found 'a\.xml'.*`format`"):
            corpus(path)

    def test_a_given_format_wins_and_compression_goes_by_name(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("one, two\n")
        assert texts(path, format="text") == ["one, two"]

    def test_upper_case_names(self, tmp_path):
        assert texts(write(tmp_path / "A.JSONL", "a")) == ["a"]


class TestUrls:
    @pytest.fixture
    def memory(self):
        filesystem = fsspec.filesystem("memory")
        yield filesystem
        filesystem.store.clear()
        filesystem.pseudo_dirs[:] = [""]

    def test_memory_with_a_glob(self, memory):
        for name in ("b", "a"):
            memory.pipe(f"/data/{name}.txt", f"{name}\n".encode())
        assert texts("memory://data/b.txt") == ["b"]
        assert texts("memory://data/*.txt") == ["a", "b"]
        files = corpus("memory://data/*.txt").files
        assert [text for name in files for text in texts(name)] == ["a", "b"]

    def test_parquet_and_gzip(self, memory, tmp_path):
        import gzip

        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
        memory.pipe("/a.parquet", (tmp_path / "a.parquet").read_bytes())
        memory.pipe("/a.txt.gz", gzip.compress(b"a\nb\n"))
        assert texts("memory://a.parquet") == texts("memory://a.txt.gz") == ["a", "b"]

    def test_scan_equals_the_local_file(self, memory, tmp_path):
        path = write(tmp_path / "a b.jsonl", "ä")
        memory.pipe("/a.jsonl", path.read_bytes())
        assert (corpus("memory://a.jsonl").scan() == corpus(f"file://{path}").scan()) and corpus(
            path
        ).scan() == corpus(f"file://{path}").scan()

    def test_nothing_there_and_a_folder(self, memory):
        memory.pipe("/data/a.txt", b"a\n")
        for url in ("memory://absent.txt", "memory://absent/*.txt"):
            with pytest.raises(CorpusError, match=r"memory://absent.*nothing"):
                corpus(url)
        with pytest.raises(CorpusError, match="found a folder"):
            corpus("memory://data")

    def test_an_unknown_protocol(self):
        for url in (
            "nope://x",
            "reference://x",
            "zip://a.csv::memory://a.zip",
            "simplecache::memory://a.csv",
            "dask://x",
            "github://owner:repo@main/a.csv",
            "jupyter://x",
            "data://text/csv;base64,AA==",
            "smb://host/a.csv",
            "ssh://host/a.csv",
        ):
            with pytest.raises(ConfigError, match=r"file, local"):
                corpus(url)

    def test_a_protocol_whose_package_is_missing(self, monkeypatch):
        # The name in the registry is what fsspec tries to import.
        known = {"class": "absent_package.FileSystem", "err": "Install absent_package to use it"}
        monkeypatch.setitem(known_implementations, "s3", known)
        monkeypatch.setitem(known_implementations, "hf", known)
        with pytest.raises(CorpusError) as caught:
            corpus("s3://bucket/a.jsonl")
        told = str(caught.value)
        assert told.startswith("s3://bucket/a.jsonl: ") and "absent_package" in told
        assert '`pip install "fsspec[s3]"`' in told
        with pytest.raises(CorpusError, match="Run `pip install absent_package`"):
            corpus("hf://a.jsonl")

    def test_an_error_of_the_remote_side_is_one_line(self, memory, monkeypatch):
        def refuse(*_args, **_kwargs):
            raise RuntimeError("no\ncredentials")

        monkeypatch.setattr(type(memory), "exists", refuse)
        with pytest.raises(CorpusError, match=r"memory://a\.jsonl: .*found: no credentials"):
            corpus("memory://a.jsonl")


@pytest.mark.parametrize(
    ("package", "name"),
    [("zstandard", "a.txt.zst"), ("pyarrow.parquet", "a.parquet"), ("fsspec", "memory://a.txt")],
)
def test_a_missing_package_becomes_its_pip_command(tmp_path, monkeypatch, package, name):
    (tmp_path / "a.txt.zst").write_bytes(b"x")
    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    path = name if "://" in name else str(tmp_path / name)
    with pytest.raises(CorpusError, match=f"pip install {package.split('.')[0]}`"):
        texts(path)


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch):
        """A stand-in for the `datasets` package that remembers how it was called."""
        module = types.ModuleType("datasets")
        module.calls = []

        class Dataset(list):
            features = None

        module.rows = Dataset()

        def load_dataset(name, config, **settings):
            module.calls.append((name, config, settings))
            return module.rows

        module.load_dataset = load_dataset
        monkeypatch.setitem(sys.modules, "datasets", module)
        return module

    @pytest.mark.parametrize(
        ("path", "name", "config", "split"),
        [
            ("hub:owner/name", "owner/name", None, "train"),
            ("hub:name:de@test", "name", "de", "test"),
            ("hub:owner/name@validation", "owner/name", None, "validation"),
        ],
    )
    def test_names(self, hub, path, name, config, split):
        hub.rows.append({"text": "a"})
        assert texts(path) == ["a"]
        assert hub.calls == [(name, config, {"split": split, "streaming": True})]
        assert corpus(path).files == (path,)

    def test_class_names_are_the_labels(self, hub):
        hub.rows.features = {"label": types.SimpleNamespace(names=["no", "yes"])}
        hub.rows += [{"text": "a", "label": 1}, {"text": "b", "label": -1}]
        assert [d.label for d in corpus("hub:x").documents()] == ["yes", None]
        assert corpus("hub:x").scan().num_rows == 2

    def test_lists_of_class_names_are_lists_of_labels(self, hub):
        names = types.SimpleNamespace(names=["no", "yes"])
        hub.rows.features = {"label": types.SimpleNamespace(feature=names)}
        hub.rows += [{"text": "a", "label": [1, 0]}, {"text": "b", "label": []}]
        assert [d.label for d in corpus("hub:x").documents()] == [("no", "yes"), ()]

    def test_errors(self, hub, monkeypatch):
        hub.rows.append({"body": "a"})
        with pytest.raises(CorpusError, match=r"hub:x: expected a column 'text', .*columns: body"):
            texts("hub:x")
        hub.rows[0] = {"text": None}
        with pytest.raises(CorpusError, match="hub:x, row 0: expected text"):
            texts("hub:x")
        hub.load_dataset = None
        with pytest.raises(CorpusError, match=r"hub:x.*found: TypeError"):
            texts("hub:x")
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(CorpusError, match=r'pip install "monoxkit\[hub\]"'):
            texts("hub:x")


@pytest.mark.parametrize(
    ("path", "lang"),
    [
        ("test.de.jsonl", "de"),
        ("runs/x/test.pt_BR.jsonl.gz", "pt_BR"),
        ("memory://a/test.zh-Hans.csv.zst", "zh-Hans"),
        ("test.ast.parquet", "ast"),
        ("test.zh_Hant_TW.txt", "zh_Hant_TW"),
        ("test.jsonl", None),
        ("de.jsonl", "de"),
        ("tickets_de.csv", "de"),
        ("test-de.csv.gz", "de"),
        ("tickets.DE.csv", "de"),
        ("de_test.jsonl", "de"),
        ("test-pt-BR.tsv", "pt-BR"),
        ("tickets_2024_de.csv", "de"),
        ("log_to.csv", None),
        ("my_tickets.csv", None),
        ("tickets.csv", None),
        ("report.PDF.csv", None),
        ("hub:xnli:de", "de"),
        ("hub:massive:de-DE@test", "de-DE"),
        ("hub:xnli:all_languages", None),
        ("hub:owner/name", None),
        ("test.jsonl.gz", None),
        ("my.dev.jsonl", None),
        ("test.v2.jsonl", None),
        ("a.de/test.jsonl", None),
        ("test.German.jsonl", None),
    ],
)
def test_lang_from_name(path, lang):
    assert lang_from_name(path) == lang
