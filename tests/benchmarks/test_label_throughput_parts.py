"""The labelling benchmark's arithmetic, its plan and the machine's limits, on tiny inputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from contenders.table import REFERENCE, ROWS
from label_throughput import parsed
from labelling_race.limits import (
    EncoderSize,
    MachineLimits,
    encoder_size,
    integer_product,
    measure_limits,
)
from labelling_race.plan import make_plan
from labelling_race.result import RoundResult, RowResult, ratios_of
from labelling_race.run import benchmark_labelling
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.data import LabelSet
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.models.agreement import agreement
from monox_kit.models.folder import open_folder
from monox_kit.problem import problem_of
from monox_kit.progress import Silent
from tests.benchmarks.tiny_race import config_for
from tests.tiny_models import labelled_rows, tokens_seen


def test_agreement_is_what_a_hand_computes() -> None:
    # Row 0: equal. Row 1: the label flips. KL of row 1 from (3/4, 1/4) to (1/4, 3/4).
    reference = np.log(np.array([[0.5, 0.5], [0.75, 0.25]], np.float32))
    other = np.log(np.array([[0.5, 0.5], [0.25, 0.75]], np.float32))
    found = agreement(reference, other, problem_of(LabelSet(("a", "b"))))
    expected = (0 + 0.75 * math.log(3) + 0.25 * math.log(1 / 3)) / 2
    assert found.argmax == 0.5
    assert found.mean_kl == pytest.approx(expected, rel=1e-5)


def test_ratios_are_medians_over_common_rounds() -> None:
    def row(*rates: int | None) -> RowResult:
        rounds = {
            number: RoundResult(2.0, 1, None if rate is None else 2 * rate, over_limit=False)
            for number, rate in enumerate(rates)
        }
        return RowResult(what="", state="measured", rounds=rounds)

    rows = {"monoxkit": row(60, 80, 30), "other": row(10, 40), "none": row(None)}
    expected = {"median": 4.0, "least": 2.0, "most": 6.0}  # 60 to 10 and 80 to 40
    assert ratios_of(rows, ["monoxkit"]) == {"monoxkit": {"other": expected}}
    assert rows["monoxkit"].tokens_per_s == 60


def test_other_programs_get_the_graph_as_pytorch_exports_it(files: Path, tmp_path: Path) -> None:
    config = config_for(files, rows=("monoxkit-fp32", "openvino-fp32"))
    plan = make_plan(config, tmp_path, Silent())
    assert plan.graph is not None
    batch = np.ones((2, 9), np.int64)
    feed = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), batch)
    theirs = tokens_seen(Path(plan.graph), feed)
    ours = tokens_seen(Path(plan.bundles["monoxkit-fp32"]) / "model.onnx", feed)
    # Two layers of six products; of the last one, ours sees all tokens in keys and values alone.
    assert theirs == [9] * 12
    assert sorted(ours) == [1] * 4 + [9] * 8
    assert make_plan(config, tmp_path, Silent()).graph == plan.graph


def test_rounds_are_disjoint_and_slices_are_spread(files: Path, tmp_path: Path) -> None:
    plan = make_plan(
        config_for(files, rows=("curator",), slices={"curator": 4}), tmp_path, Silent()
    )
    texts = [row["text"] for row in labelled_rows(40, seed=1)]
    assert [list(each) for each in plan.rounds] == [texts[0:24:2], texts[1:24:2]]
    assert plan.slice_of("curator") == [0, 3, 6, 9]
    assert plan.slice_of(REFERENCE) == list(range(12))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"graph": "none.onnx", "rows": ("monoxkit-fp32",)}, ConfigError, "found no file at none"),
        ({"rows_per_round": 100}, CorpusError, "expected 208 texts .* found 40"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    files: Path, tmp_path: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        benchmark_labelling(config_for(files, **options), tmp_path)


def test_pairs_are_refused(files: Path, tmp_path: Path) -> None:
    corpus = CorpusConfig(paths=(str(files / "pairs.jsonl"),))
    with pytest.raises(CorpusError, match="expected single texts"):
        benchmark_labelling(config_for(files, corpus=corpus), tmp_path)


def test_every_row_says_what_it_is() -> None:
    assert all(row.what and "\n" not in row.what for row in ROWS.values())


def test_operations_of_a_token_are_those_of_the_matrices(files: Path) -> None:
    # 2 layers of 4 matrices 32 x 32 and 2 matrices 32 x 64, a multiplication and an addition each.
    size = encoder_size(open_folder(str(files / "model")))
    assert size == EncoderSize(32, 64, 2 * 2 * (4 * 32 * 32 + 2 * 32 * 64))


def test_limits_hold_every_type_and_shape() -> None:
    size = EncoderSize(32, 64, 32768)
    found = measure_limits(size, budget_s=0.0)
    assert set(found.products) == set(found.rates) == {"fp32", "bf16", "int8"}
    assert all(set(each) == {"32x32", "32x64"} for each in found.products.values())
    # 1 x 10^9 operations a second over 32,768 operations a token.
    one = MachineLimits(1, {}, {"fp32": 1.0}, {})
    assert one.tokens_per_s(size)["fp32"] == pytest.approx(30517.578125)


def test_integer_product_is_exact() -> None:
    generator = np.random.default_rng(1)
    weights = generator.integers(-8, 8, (16, 12), np.int8)
    activations = generator.integers(0, 16, (5, 16), np.uint8)
    found = integer_product(weights, 5, 1)(activations)
    assert np.array_equal(found, activations.astype(np.int64) @ weights.astype(np.int64))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--rows", "pipelin"], "'pipelin'"),
        (["--rows", "monoxkit-guard"], "--guard 0.999"),
        (["--guard", "99.9"], "'99.9'"),
        (["--python", "pipeline"], "'pipeline'"),
        (["--python", "x=PATH"], "'x'"),
        (["--slice", "pipeline=few"], "'pipeline=few'"),
        (["--slice", "pipeline=0"], "'pipeline=0'"),
        (["--rounds", "0"], "'0'"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    given: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(given)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_values_by_row_are_those_of_every_time_an_option_is_given() -> None:
    given = [
        "--slice",
        "pipeline=4",
        "curator=2",
        "--slice",
        "crossencoder=3",
        "--python",
        "pipeline=a=b",
    ]
    found = parsed(given)
    assert dict(found.slice) == {"pipeline": 4, "curator": 2, "crossencoder": 3}
    assert dict(found.python) == {"pipeline": "a=b"}
