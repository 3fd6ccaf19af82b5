"""Answers in files become a store: what each form means, what is refused, and what is skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import monox_kit as mk
from monox_kit.data import MULTI_LABEL, LabelSet
from monox_kit.errors import ConfigError, CorpusError, MonoxError, StoreMismatch
from monox_kit.importing import run as importing
from monox_kit.importing import seen_ids
from monox_kit.objectives import LEAST_PROBABILITY, logits_of, probabilities
from monox_kit.problem import problem_of
from monox_kit.store import LogitStore, filling, store_stats
from tests.notes import Notes

NAMES = ("games", "mail", "text")
MULTI = LabelSet(NAMES, MULTI_LABEL)


def write(path: Path, *answers: Any, column: str = "said", **more: Sequence[Any]) -> str:
    """A file of rows with answers, and more columns."""
    rows = [
        {"id": f"k{at}", "text": f"text {at}", column: answer}
        | {name: values[at] for name, values in more.items()}
        for at, answer in enumerate(answers)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def labels_at(folder: Path, *, multi: bool = False) -> str:
    kind = {"problem_type": MULTI_LABEL} if multi else {}
    path = folder / "labels.json"
    path.write_text(json.dumps({"names": NAMES, **kind}))
    return str(path)


def imported(folder: Path, *files: str, multi: bool = False, **settings: Any) -> LogitStore:
    """The store of an import, every byte of it checked."""
    out = settings.pop("out", folder / "store")
    labels = labels_at(folder, multi=multi)
    mk.import_store(list(files), out=out, labels=labels, **{"origin": "gpt-x", **settings})
    return LogitStore.open(out, verify="full")


def stored(folder: Path, kind: str, *answers: Any, multi: bool = False, **settings: Any) -> Any:
    """[N, C] probabilities in the store that an import of these answers makes."""
    settings = {f"{kind}_column": "said", **settings}
    store = imported(folder, write(folder / "a.jsonl", *answers), multi=multi, **settings)
    return problem_of(store.labels).probabilities(store.logits(slice(None)))


TINY = LEAST_PROBABILITY
NEAR = math.exp(2**-9)  # how much more probable than others the least listed class is at least
FORMS: dict[str, tuple[str, Any, list[float], dict[str, Any]]] = {
    "label": ("label", "mail", [0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3], {}),
    "smoothed": ("label", "games", [0.9, 0.05, 0.05], {"smoothing": 0.15}),
    "number": ("label", 2, [0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3], {"label_names": NAMES}),
    "probabilities": (
        "probabilities",
        {"mail": 0.2, "text": 0.1, "games": 0.7},
        [0.7, 0.2, 0.1],
        {},
    ),
    "list": ("probabilities", [0.7, 0.2, 0.1], [0.7, 0.2, 0.1], {}),
    "text": ("probabilities", "[0.7, 0.2, 0.1]", [0.7, 0.2, 0.1], {}),
    "rounded": ("probabilities", [0.333, 0.333, 0.333], [1 / 3] * 3, {}),
    "zero": ("probabilities", [1, 0, 0], [1 / (1 + 2 * TINY), TINY, TINY], {}),
    "tiny": ("probabilities", [1 - 1e-9, 1e-9, 0], [1, 1e-9, 1e-9], {}),
    "logits": ("logits", [3, 1, -2.5], list(np.exp([3, 1, -2.5]) / np.exp([3, 1, -2.5]).sum()), {}),
    "votes": ("votes", ["mail", "mail", "text", "mail", "text"], [TINY, 0.6, 0.4], {}),
    "counts": ("votes", {"mail": 3, "text": 2}, [TINY, 0.6, 0.4], {}),
    "logprobs": ("logprobs", {"games": math.log(0.7), "mail": math.log(0.2)}, [0.7, 0.2, 0.1], {}),
    "top 1": ("logprobs", {"games": math.log(0.4)}, [0.4, 0.3, 0.3], {}),
    "less than the least": (
        "logprobs",
        {"text": math.log(0.1)},
        [1 / (2 + NEAR), 1 / (2 + NEAR), NEAR / (2 + NEAR)],
        {},
    ),
    "missing mass": ("logprobs", {"games": -0.1}, [0.98, 0.01, 0.01], {"missing_mass": 0.02}),
    "tokens": (
        "logprobs",
        [
            {"token": " games", "logprob": math.log(0.5)},
            {"token": "games", "logprob": math.log(0.2)},
            {"token": "I", "logprob": math.log(0.1)},
            {"token": "mail", "logprob": math.log(0.12)},
        ],
        [0.7 / 0.9, 0.12 / 0.9, 0.08 / 0.9],
        {},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_answers_mean(tmp_path: Path, name: str) -> None:
    kind, answer, expected, settings = FORMS[name]
    found = stored(tmp_path, kind, answer, answer, **settings)
    np.testing.assert_allclose(found, [expected] * 2, rtol=3e-6, atol=1e-12)


MULTI_FORMS: dict[str, tuple[str, Any, list[float], dict[str, Any]]] = {
    "labels": ("label", ["mail", "text"], [0.05, 0.95, 0.95], {}),
    "none": ("label", [], [0.05, 0.05, 0.05], {}),
    "probabilities": ("probabilities", [0.9, 0.8, 0], [0.9, 0.8, TINY], {}),
    "logits": ("logits", {"games": 0, "mail": 2, "text": -2}, [0.5, 0.880797, 0.119203], {}),
    "votes": ("votes", [["mail"], ["mail", "text"], [], ["mail"]], [TINY, 0.75, 0.25], {}),
}


@pytest.mark.parametrize("name", MULTI_FORMS)
def test_answers_of_classes_that_do_not_exclude_each_other_mean(tmp_path: Path, name: str) -> None:
    kind, answer, expected, settings = MULTI_FORMS[name]
    found = stored(tmp_path, kind, answer, multi=True, **settings)
    np.testing.assert_allclose(found, [expected], rtol=3e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_class_that_is_listed_is_decided_for(tmp_path: Path, dtype: str) -> None:
    """The last class alone, whose share of what is missing would be more than its own; in float16
    also where the least listed one is far below the best."""
    best = math.log(0.6)
    answers = [
        *({"text": math.log(share)} for share in (0.9, 0.34, 0.3, 0.01, 1e-5)),
        *({"mail": best, "text": best - gap} for gap in np.linspace(0.5, 9, 60)),
    ]
    file = write(tmp_path / "a.jsonl", *answers)
    store = imported(tmp_path, file, logprobs_column="said", dtype=dtype)
    logits = store.logits(slice(None))
    for answer, row in zip(answers, logits.tolist()):
        listed = {name: row[NAMES.index(name)] for name in answer}
        assert NAMES[int(np.argmax(row))] in answer
        missing = [value for name, value in zip(NAMES, row) if name not in listed]
        assert max(missing) < min(listed.values()), (answer, row)


@pytest.mark.parametrize(("mass", "is_refused"), [(0.65, False), (0.67, True), (0.9, True)])
def test_a_missing_mass_leaves_the_best_listed_class_the_most_probable(
    tmp_path: Path, mass: float, is_refused: bool
) -> None:
    file = write(tmp_path / "a.jsonl", {"text": -0.1})
    settings: dict[str, Any] = {"logprobs_column": "said", "missing_mass": mass, "dtype": "float16"}
    if is_refused:
        with pytest.raises(CorpusError, match=r"line 1.*Give a lower `missing_mass`"):
            imported(tmp_path, file, **settings)
        return
    assert imported(tmp_path, file, **settings).logits(slice(None)).argmax() == 2


BAD: dict[str, tuple[str, Any]] = {
    # What is missing, or of another form.
    "no answer": ("label", None),
    "empty answer": ("label", ""),
    "a list for a label": ("label", ["games"]),
    "an object for a label": ("label", {"games": 1}),
    "unknown label": ("label", "sport"),
    "another case": ("label", "Games"),
    "white space": ("label", " games"),
    "a refusal": ("label", "I cannot answer that."),
    "a fraction for a label": ("label", 0.5),
    "a number of no class": ("label", 3),
    "true for a label": ("label", True),
    "no probabilities": ("probabilities", None),
    "probabilities: text": ("probabilities", "games"),
    "probabilities: broken JSON": ("probabilities", "[0.1, 0.9"),
    "probabilities: a number": ("probabilities", 0.9),
    "probabilities: too few": ("probabilities", [0.5, 0.5]),
    "probabilities: too many": ("probabilities", [0.25, 0.25, 0.25, 0.25]),
    "probabilities: none of them": ("probabilities", []),
    "probabilities: class missing": ("probabilities", {"games": 0.5, "mail": 0.5}),
    "probabilities: class null": ("probabilities", {"games": 0.5, "mail": 0.5, "text": None}),
    "probabilities: unknown class": (
        "probabilities",
        {"games": 0.5, "mail": 0.5, "text": 0.0, "x": 0.0},
    ),
    "probabilities: sum below 1": ("probabilities", [0.5, 0.2, 0.1]),
    "probabilities: sum above 1": ("probabilities", [0.5, 0.5, 0.1]),
    "probabilities: percent": ("probabilities", [70, 20, 10]),
    "probabilities: all 0": ("probabilities", [0, 0, 0]),
    "probabilities: negative": ("probabilities", [1.2, -0.1, -0.1]),
    "probabilities: text among them": ("probabilities", [0.5, "0.3", 0.2]),
    "probabilities: NaN": ("probabilities", [0.5, math.nan, 0.5]),
    "probabilities: true": ("probabilities", [True, 0, 0]),
    "logits: NaN": ("logits", [0.5, math.nan, 0.5]),
    "logits: infinite": ("logits", [0.5, math.inf, 0.5]),
    "logits: beyond float32": ("logits", [1e39, 0, 0]),
    "logits: beyond float64": ("logits", [10**400, 0, 0]),
    "logits: far below 0": ("logits", {"games": -(10**400), "mail": 0, "text": 0}),
    "probabilities: beyond float64": ("probabilities", [10**400, 0, 0]),
    "a number of 400 digits for a label": ("label", 10**400),
    "logits: nested": ("logits", [[1, 2, 3]]),
    "logits: null among them": ("logits", [1, None, 2]),
    "logits: too few": ("logits", [1, 2]),
    "logprobs: above 0": ("logprobs", {"games": 0.5}),
    "logprobs: more than 1": ("logprobs", {"games": -0.1, "mail": -0.1}),
    "logprobs: unknown class": ("logprobs", {"sport": -0.1}),
    "logprobs: NaN": ("logprobs", {"games": math.nan}),
    "logprobs: nothing": ("logprobs", {}),
    "logprobs: without weight": ("logprobs", {"games": -9999.0}),
    "logprobs: text": ("logprobs", {"games": "-0.1"}),
    "logprobs: a list of numbers": ("logprobs", [-0.1, -3]),
    "logprobs: far below 0": ("logprobs", {"games": -0.1, "mail": -(10**400)}),
    "logprobs: far above 0": ("logprobs", [{"token": "mail", "logprob": 10**400}]),
    "logprobs: no token": ("logprobs", [{"logprob": -0.1}]),
    "logprobs: best token is no class": ("logprobs", [{"token": "I", "logprob": -0.1}]),
    "logprobs: no number": ("logprobs", [{"token": "mail"}]),
    "votes: none": ("votes", []),
    "votes: a text": ("votes", "games"),
    "votes: unknown class": ("votes", ["games", "sport"]),
    "votes: null": ("votes", ["games", None]),
    "votes: negative count": ("votes", {"games": -1, "mail": 2}),
    "votes: half a vote": ("votes", {"games": 0.5}),
    "votes: counts of 0": ("votes", {"games": 0}),
    "votes: a count beyond float64": ("votes", {"games": 10**400, "mail": 1}),
    "votes: counts whose sum is beyond float64": ("votes", {"games": 10**308, "mail": 1.5e308}),
}
assert len(BAD) >= 40


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_an_error_of_its_row(tmp_path: Path, name: str) -> None:
    kind, answer = BAD[name]
    good = {"label": "mail", "logprobs": {"mail": -0.1}, "votes": ["mail"]}.get(kind, [0, 1, 0])
    file = write(tmp_path / "answers.jsonl", good, answer, good)
    with pytest.raises(CorpusError, match=r"answers\.jsonl, line 2"):
        imported(tmp_path, file, **{f"{kind}_column": "said"})
    assert not (tmp_path / "store").exists()
    # Skipped, it is in the report, and nothing of the row is in the store.
    report = tmp_path / "skipped.jsonl"
    store = imported(
        tmp_path, file, on_unknown_label="skip", report=report, **{f"{kind}_column": "said"}
    )
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    if name in ("votes: unknown class", "votes: null"):  # the other vote counts
        assert lines == [] and store.ids(slice(None)) == ["k0", "k1", "k2"]
        return
    assert [(line["id"], line["where"]) for line in lines] == [("k1", f"{file}, line 2")]
    assert lines[0]["why"]
    assert store.ids(slice(None)) == ["k0", "k2"]


MULTI_BAD: dict[str, tuple[str, Any]] = {
    "one label": ("label", "games"),
    "unknown among them": ("label", ["games", "sport"]),
    "a probability above 1": ("probabilities", [0.5, 1.5, 0]),
    "votes of names": ("votes", ["games", "mail"]),
    "counts": ("votes", {"games": 1}),
}


@pytest.mark.parametrize("name", MULTI_BAD)
def test_what_cannot_be_used_where_classes_do_not_exclude_each_other(
    tmp_path: Path, name: str
) -> None:
    kind, answer = MULTI_BAD[name]
    file = write(tmp_path / "answers.jsonl", answer)
    with pytest.raises(CorpusError, match=r"answers\.jsonl, line 1"):
        imported(tmp_path, file, multi=True, **{f"{kind}_column": "said"})


BROKEN_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such column": (lambda path: write(path, "mail", column="other"), "line 1.*'said'"),
    "no text": (
        lambda path: path.write_text('{"text": "a", "said": "mail"}\n{"said": "mail"}\n'),
        "line 2",
    ),
    "not JSON": (
        lambda path: path.write_text('{"text": "a", "said": "mail"}\nmail\n'),
        "line 2",
    ),
    "empty": (lambda path: path.write_text(""), "empty file"),
    "an id twice": (
        lambda path: path.write_text('{"text": "a", "said": "mail", "id": 7}\n' * 2),
        "line 2: id '7'",
    ),
    "no class anywhere": (lambda path: write(path, "x", "y"), "line 1"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_files_that_cannot_be_used_are_errors(tmp_path: Path, name: str) -> None:
    make, where = BROKEN_FILES[name]
    make(tmp_path / "answers.jsonl")
    with pytest.raises(CorpusError, match=rf"answers\.jsonl.*{where}"):
        imported(tmp_path, str(tmp_path / "answers.jsonl"), label_column="said")
    assert not (tmp_path / "store").exists()


def test_other_formats_name_their_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,said\none,"[0.7, 0.2, 0.1]"\ntwo,"[0.7, 0.2]"\n')
    with pytest.raises(CorpusError, match=r"a\.csv, line 3"):
        imported(tmp_path, str(tmp_path / "a.csv"), probabilities_column="said")
    table = pa.table({"text": ["a", "b"], "said": pa.array([[1.0, 2.0, 3.0], [1.0]])})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet, row 1"):
        imported(tmp_path, str(tmp_path / "a.parquet"), logits_column="said")
    (tmp_path / "a.txt").write_text("text\n")
    with pytest.raises(CorpusError, match=r"a\.txt"):
        imported(tmp_path, str(tmp_path / "a.txt"), label_column="said")


def test_equal_answers_in_every_format_give_the_same_store(tmp_path: Path) -> None:
    given = [[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]
    rows = {"id": ["k0", "k1"], "text": ["text 0", "text 1"]}
    files = [write(tmp_path / "a.jsonl", *given)]
    (tmp_path / "a.csv").write_text(
        "id,text,said\n" + "".join(f'k{at},text {at},"{one}"\n' for at, one in enumerate(given))
    )
    structs = [dict(zip(NAMES, one)) for one in given]
    maps = pa.array([list(one.items()) for one in structs], pa.map_(pa.string(), pa.float64()))
    for name, said in (
        ("list", pa.array(given)),
        ("fixed", pa.array(given, pa.list_(pa.float64(), 3))),
        ("struct", pa.array(structs)),
        ("map", maps),
    ):
        pq.write_table(pa.table({**rows, "said": said}), tmp_path / f"{name}.parquet")
    files += [str(tmp_path / "a.csv"), *map(str, tmp_path.glob("*.parquet"))]
    digests = {
        imported(tmp_path, file, probabilities_column="said", out=tmp_path / f"s{at}").digest
        for at, file in enumerate(files)
    }
    assert len(files) == 6 and len(digests) == 1


def test_skipped_rows_leave_the_others_as_they_would_be_alone(tmp_path: Path) -> None:
    """Shards of two rows; what is skipped stands at their first, last and only rows."""
    wanted = [at % 3 for at in range(11)]
    skipped = {0, 3, 4, 5, 10}
    answers = ["I refuse" if at in skipped else NAMES[wanted[at]] for at in range(11)]
    settings = {"label_column": "said", "shard_rows": 2}
    notes = Notes()
    path = write(tmp_path / "all.jsonl", *answers)
    store = imported(tmp_path, path, on_unknown_label="skip", progress=notes, **settings)
    rows = [at for at in range(11) if at not in skipped]
    lines = Path(path).read_text().splitlines(keepends=True)
    (tmp_path / "some.jsonl").write_text("".join(lines[at] for at in rows))
    alone = imported(tmp_path, str(tmp_path / "some.jsonl"), out=tmp_path / "alone", **settings)
    assert store.digest == alone.digest
    assert store.ids(slice(None)) == [f"k{at}" for at in rows]
    assert any("5 rows are not in the store" in note for note in notes.notes)


def test_repeated_ids_are_skipped_or_kept_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_ids, "_RECENT", 2)  # ids that are sorted in, and recent ones
    keys = ["a", "b", "a", "c", "d", "c", "b", "e"]
    lines = [{"id": key, "text": f"t{at}", "said": "mail"} for at, key in enumerate(keys)]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    report = tmp_path / "r.jsonl"
    once = imported(tmp_path, str(file), label_column="said", on_duplicate_id="skip", report=report)
    assert once.texts(slice(None)) == ["t0", "t1", "t3", "t4", "t7"]
    places = [json.loads(line)["where"] for line in report.read_text().splitlines()]
    assert places == [f"{file}, line {line}" for line in (3, 6, 7)]
    every = imported(
        tmp_path, str(file), label_column="said", on_duplicate_id="keep", out=tmp_path / "every"
    )
    assert every.ids(slice(None)) == keys


def test_an_answer_of_no_class_first_does_not_take_the_id(tmp_path: Path) -> None:
    lines = [{"id": "a", "text": "t", "said": said} for said in ("Sorry", "mail")]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    file = str(tmp_path / "a.jsonl")
    store = imported(tmp_path, file, label_column="said", on_unknown_label="skip")
    assert len(store) == 1


@pytest.mark.parametrize("failing_window", [0, 1, 3])
def test_an_import_that_fails_continues_to_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_window: int
) -> None:
    answers = [NAMES[at % 3] if at % 4 else "?" for at in range(22)]
    file = write(tmp_path / "a.jsonl", *answers)
    settings = {"label_column": "said", "on_unknown_label": "skip", "shard_rows": 4}
    whole = imported(tmp_path, file, out=tmp_path / "whole", **settings)
    real, calls = filling.ShardSink.add, iter(range(100))

    def failing(*args: Any) -> None:
        if next(calls) == failing_window:
            raise RuntimeError("power cut")
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(filling.ShardSink, "add", failing)
        with pytest.raises(RuntimeError, match="power cut"):
            imported(tmp_path, file, **settings)
    kept = tmp_path / "store" / "shards"
    assert len(list(kept.iterdir())) == failing_window
    assert imported(tmp_path, file, **settings).digest == whole.digest
    again = mk.import_store(
        file, out=tmp_path / "store", labels=labels_at(tmp_path), origin="gpt-x", **settings
    )
    assert again.reused and again.num_resumed_rows == again.num_rows == 16
    assert again.labels == dict(zip(NAMES, (6, 5, 5)))
    assert sum(again.num_skipped.values()) == 6


@pytest.mark.parametrize("change", ["answer", "text", "refusal"])
def test_files_that_change_between_the_passes_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file = Path(write(tmp_path / "a.jsonl", "mail", "games", "text"))
    old, new = {
        "answer": ("games", "mail"),
        "text": ("text 1", "text 7"),
        "refusal": ("games", "no"),
    }[change]
    real = importing._manifest

    def changing(*args: Any) -> Any:
        file.write_text(file.read_text().replace(old, new))
        return real(*args)

    monkeypatch.setattr(importing, "_manifest", changing)
    with pytest.raises(CorpusError, match="changed while they were imported"):
        imported(tmp_path, str(file), label_column="said", on_unknown_label="skip")
    assert not list((tmp_path / "store" / "shards").iterdir())


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"origin": "gpt-y"}, "the teacher"),
        ({"smoothing": 0.2}, "the smoothing"),
        ({"probabilities_column": "p", "label_column": None}, "what the answers are"),
    ],
)
def test_a_store_is_continued_by_the_same_import_alone(
    tmp_path: Path, other: dict[str, Any], named: str
) -> None:
    file = write(tmp_path / "a.jsonl", "mail", "games", p=[[0, 1, 0], [1, 0, 0]])
    imported(tmp_path, file, label_column="said")
    with pytest.raises(StoreMismatch, match=named):
        imported(tmp_path, file, **{"label_column": "said", **other})
    again = write(tmp_path / "a.jsonl", "mail", "text")
    with pytest.raises(StoreMismatch, match="the answers in the files"):
        imported(tmp_path, again, label_column="said")


def test_gold_labels_are_kept_where_their_column_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "mail", "games", "text", label=["mail", "mail", None])
    store = imported(tmp_path, file, label_column="said", gold_column="label")
    assert store.gold(slice(None)).tolist() == [1, 1, -1]
    stats = store_stats(tmp_path / "store")
    assert stats.agreement == 0.5 and stats.num_labelled == 2
    assert stats.precision_rows == {}  # nothing was computed
    assert [label.predicted for label in stats.labels] == [1, 1, 1]
    without = imported(tmp_path, file, label_column="said", out=tmp_path / "without")
    assert without.gold(slice(None)).tolist() == [-1, -1, -1]
    with pytest.raises(CorpusError, match="'gold'"):
        imported(tmp_path, file, label_column="said", gold_column="gold")


def test_probabilities_of_a_store_give_the_store_again(tmp_path: Path) -> None:
    """An import keeps its own probabilities: imported again, they are the same logits."""
    generator = np.random.default_rng(5)
    given = generator.dirichlet([0.3, 0.3, 0.3], 200)
    first = imported(
        tmp_path, write(tmp_path / "a.jsonl", *given.tolist()), probabilities_column="said"
    )
    kept = probabilities(first.logits(slice(None)))
    np.testing.assert_allclose(kept, given, rtol=2e-6, atol=1e-12)
    file = write(tmp_path / "b.jsonl", *kept.tolist())
    second = imported(tmp_path, file, probabilities_column="said", out=tmp_path / "again")
    np.testing.assert_array_equal(first.logits(slice(None)), second.logits(slice(None)))
    assert logits_of(given).max(axis=1).tolist() == [0.0] * 200


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_column": "a", "votes_column": "b"},
        {"label_column": "a", "missing_mass": 0.1},
        {"votes_column": "a", "smoothing": 0.1},
        {"label_column": "a", "smoothing": 0.0},
        {"label_column": "a", "report": "r.jsonl"},
        {"label_column": "a", "origin": " "},
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        imported(tmp_path, write(tmp_path / "a.jsonl", "mail"), **settings)


def test_log_probabilities_of_classes_that_do_not_exclude_each_other_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="`logprobs_column`"):
        stored(tmp_path, "logprobs", {"mail": -0.1}, multi=True)


def test_a_report_says_why_no_row_could_be_used(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "x", "y")
    report = tmp_path / "r.jsonl"
    with pytest.raises(MonoxError, match=r"no row has an answer .*\(2\)"):
        imported(tmp_path, file, label_column="said", on_unknown_label="skip", report=report)
    assert len(report.read_text().splitlines()) == 2  # why none could be used


def test_a_json_row_without_the_answers_key_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"id": "t1", "text": "a"}, {"id": "t2", "text": "b", "said": "mail"}]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in (*rows, {"id": "t3", "text": "c"})))
    (tmp_path / "b.json").write_text(json.dumps([{"id": "t4", "text": "d"}]))
    report = tmp_path / "r.jsonl"
    store = imported(
        tmp_path,
        str(file),
        str(tmp_path / "b.json"),
        label_column="said",
        on_unknown_label="skip",
        report=report,
        shard_rows=1,
    )
    assert store.ids(slice(None)) == ["t2"]
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(line["id"], line["why"]) for line in lines] == [
        (name, "no answer in column 'said'") for name in ("t1", "t3", "t4")
    ]


def test_a_column_that_no_row_has_is_an_error_where_rows_are_skipped(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "mail", "games")
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 1: expected a column 'sad'.*said"):
        imported(tmp_path, file, label_column="sad", on_unknown_label="skip")
    # A header is that of all rows of its file.
    (tmp_path / "b.csv").write_text("text,other\na,mail\n")
    with pytest.raises(CorpusError, match=r"b\.csv, line 1: expected a column 'said'"):
        imported(
            tmp_path, file, str(tmp_path / "b.csv"), label_column="said", on_unknown_label="skip"
        )


@pytest.mark.parametrize(
    "name", ["a.jsonl", "link", "labels.json", "store/skipped.jsonl", "store", "sub/../a.jsonl"]
)
def test_a_report_takes_no_other_files_place(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "a.jsonl", "x", "mail")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("a.jsonl")
    (tmp_path / "linked.jsonl").symlink_to("a.jsonl")
    labels = Path(labels_at(tmp_path))
    before = Path(file).read_bytes(), labels.read_bytes()
    settings: dict[str, Any] = {"label_column": "said", "on_unknown_label": "skip"}
    for given in (file, str(tmp_path / "linked.jsonl")):
        with pytest.raises(ConfigError, match="`report`"):
            imported(tmp_path, given, report=tmp_path / name, **settings)
    assert (Path(file).read_bytes(), labels.read_bytes()) == before
    assert not (tmp_path / "store").exists()


def test_an_import_that_is_refused_leaves_the_report_of_the_first(tmp_path: Path) -> None:
    report = tmp_path / "r.jsonl"
    settings: dict[str, Any] = {"label_column": "said", "on_unknown_label": "skip"}
    file = write(tmp_path / "a.jsonl", "x", "mail")
    imported(tmp_path, file, report=report, **settings)
    before = report.read_bytes()
    other = write(tmp_path / "b.jsonl", "mail", "y", "z")
    with pytest.raises(StoreMismatch):
        imported(tmp_path, other, report=report, **settings)
    assert report.read_bytes() == before
