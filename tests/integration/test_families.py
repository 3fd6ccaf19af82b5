"""Model families of transformers: ours against plain transformers, and which of them export.

Run under the oldest transformers that monoxkit supports by `make families-floor`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging

from monox_kit.data import Document, Logits
from monox_kit.errors import ModelError
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.exporting.config import FORMS
from monox_kit.models.load import load_model
from monox_kit.models.scoring import score
from tests.family_zoo import FAMILIES, family_classifier
from tests.tiny_models import WORDS

_MAX_LENGTH = 60
# What `test_encoders` takes the whole way.
# mmBERT is a ModernBERT, mBERT a BERT, mDeBERTa a DeBERTa-v2 as DeBERTa-v3 is.
ENCODERS = (
    "bert", "deberta-v2", "distilbert", "electra", "eurobert", "modernbert", "mpnet", "roberta",
    "xlm-roberta",
)  # fmt: skip
# One of each kind, and what export does otherwise; `make families` takes them all.
_SAMPLED = (
    "bart", "bert", "deberta-v2", "fnet", "gpt2", "modernbert", "t5", "xlnet",
)  # fmt: skip


def sampled(families: Sequence[str]) -> list[Any]:
    """Parameters of a test: the sampled families as they are, the others with `-m complete`."""
    return [
        name if name in _SAMPLED else pytest.param(name, marks=pytest.mark.complete)
        for name in families
    ]


_LENGTHS = (1, 2, 3, 5, 9, 14, 30, 45)
_TEXTS = [
    " ".join(WORDS[(7 * row + 5 * place) % len(WORDS)] for place in range(length))
    for row, length in enumerate(_LENGTHS)
]
_DOCUMENTS = [Document(row=row, id=str(row), text=text) for row, text in enumerate(_TEXTS)]
_PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@contextmanager
def quiet() -> Iterator[None]:
    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if had_bars:
            logging.enable_progress_bar()


def plain_logits(
    folder: Path, texts: Sequence[str] = _TEXTS, *, max_length: int = _MAX_LENGTH
) -> Logits:
    """What transformers says of each text alone, in float32."""
    # As the file has it: the families' own classes make letters of it for some (Qwen2).
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    with quiet(), torch.inference_mode():
        model = AutoModelForSequenceClassification.from_pretrained(
            str(folder), dtype=torch.float32
        ).eval()
        taken = set(_parameters(model))
        found = []
        for text in texts:
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_length)
            found.append(model(**{k: v for k, v in inputs.items() if k in taken}).logits.numpy())
    return np.concatenate(found)


def _parameters(model: Any) -> list[str]:
    import inspect

    return list(inspect.signature(model.forward).parameters)


# Sums of float32 in another order, of batches and of threads, were seen 1.02e-6 apart.
_ROUNDING = 5e-6


def require_equal(found: Logits, expected: Logits, tolerance: float = _ROUNDING) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@cache
def table() -> dict[str, tuple[str, str]]:
    """By family, what the page says of opset 23 and of opset 17."""
    rows = re.findall(r"^\| `([a-z0-9_-]+)` \| (yes|no) \| (yes|no) \|", _PAGE.read_text(), re.M)
    return {family: (newer, older) for family, newer, older in rows}


def test_the_page_lists_every_family_that_is_tested() -> None:
    assert list(table()) == sorted(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_scores_as_in_plain_transformers_alone_and_among_others(
    family: str, tmp_path: Path
) -> None:
    with quiet():
        folder = family_classifier(tmp_path / family, family)
    expected = plain_logits(folder)
    # A model that says the same of every text would hide what padding does.
    assert expected.std(axis=0).max() > 0.05
    model = load_model(str(folder), max_length=_MAX_LENGTH)
    alone = [score(model.classifier, model.tokenizer, [one]).logits for one in _DOCUMENTS]
    require_equal(np.concatenate(alone), expected)
    require_equal(score(model.classifier, model.tokenizer, _DOCUMENTS).logits, expected)


def test_the_model_decides_which_of_the_tokenizers_arrays_it_takes(tmp_path: Path) -> None:
    with quiet():
        folder = family_classifier(tmp_path / "m", "distilbert", token_types=True)
    model = load_model(str(folder), max_length=_MAX_LENGTH)
    assert model.tokenizer.has_token_types
    require_equal(score(model.classifier, model.tokenizer, _DOCUMENTS).logits, plain_logits(folder))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8-smooth", "int8-static"])
@pytest.mark.parametrize(
    "family",
    [
        "distilbert",  # it takes no segment ids, which its tokenizer makes here
        "deberta-v2",  # it takes them, and they change nothing: its graph has no such input
    ],
)
def test_the_graph_decides_what_it_is_fed(family: str, precision: str, tmp_path: Path) -> None:
    with quiet():
        folder = family_classifier(tmp_path / "m", family, token_types=True)
    config = ExportConfig(
        model=str(folder),
        precision=precision,
        graph="opset17-eager",
        max_length=_MAX_LENGTH,
        min_agreement=0.5,
    )
    summary = export_model(config, tmp_path / "bundle")
    assert summary.precision == precision
    bundle = load_model(str(tmp_path / "bundle"))
    found = score(bundle.classifier, bundle.tokenizer, _DOCUMENTS).logits
    if precision == "fp32":
        require_equal(found, plain_logits(folder), 1e-5)


@pytest.mark.slow
def test_modernbert_exports_in_the_first_form_that_works(tmp_path: Path) -> None:
    with quiet():
        folder = family_classifier(tmp_path / "m", "modernbert")
    config = ExportConfig(model=str(folder), max_length=_MAX_LENGTH)
    summary = export_model(config, tmp_path / "bundle")
    assert summary.chosen == "fp32:opset17-eager"
    assert summary.candidates["fp32"]["rejected"] == "onnxruntime cannot run it in this form."
    assert "RotaryEmbedding" in summary.candidates["fp32"]["cause"]
    bundle = load_model(str(tmp_path / "bundle"))
    found = score(bundle.classifier, bundle.tokenizer, _DOCUMENTS).logits
    require_equal(found, plain_logits(folder), 1e-5)


# The export checks it on batches of several texts, where it is right.
_FAILS_ALONE = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="mbart's graph breaks off on a text alone"
)


@pytest.mark.slow
@pytest.mark.parametrize("family", sampled([name for name in FAMILIES if name not in ENCODERS]))
def test_a_family_exports_at_opset_17_where_the_page_says_so(family: str, tmp_path: Path) -> None:
    require_as_listed(family, "opset17-eager", tmp_path)


@pytest.mark.complete
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=_FAILS_ALONE if name == "mbart" else ())
        for name in FAMILIES
        if name not in ENCODERS
    ],
)
def test_a_family_exports_at_opset_23_where_the_page_says_so(family: str, tmp_path: Path) -> None:
    require_as_listed(family, "opset23", tmp_path)


def require_as_listed(family: str, form: str, folder: Path) -> None:
    """Export, and compare with the page; what is refused is refused by name."""
    with quiet():
        model = family_classifier(folder / family, family)
    config = ExportConfig(model=str(model), graph=form, max_length=_MAX_LENGTH)
    listed = table()[family][0 if FORMS[form].opset == 23 else 1]
    try:
        export_model(config, folder / "bundle")
    except ModelError as error:
        assert listed == "no", error
        assert "ForSequenceClassification cannot be exported" in str(error)
        return
    assert listed == "yes"
    bundle = load_model(str(folder / "bundle"))
    found = score(bundle.classifier, bundle.tokenizer, _DOCUMENTS).logits
    require_equal(found, plain_logits(model), 1e-5)
