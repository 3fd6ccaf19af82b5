"""An optimizer over the rows that occur makes the steps of one over the whole embedding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from monox_kit.errors import ConfigError, ModelError
from monox_kit.training.config import LoopConfig
from monox_kit.training.embeddings import OccurringEmbedding, install, restore
from monox_kit.training.optimizer import new_optimizer, optimizer_tensors, restore_optimizer

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
OCCURRING = np.array([1, 2, 5, 17, 40, 41, 42, 99, 180, 299])
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIG = LoopConfig(learning_rate=1e-2, weight_decay=0.1)


def bert(**changes: Any) -> Any:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, **changes))


def xlm_roberta() -> Any:
    torch.manual_seed(0)
    return XLMRobertaForSequenceClassification(XLMRobertaConfig(**SIZES, pad_token_id=1))


def batches(count: int, pad: int) -> list[dict[str, torch.Tensor]]:
    """Batches of 4 texts of ids that occur, with padding; a token may occur more than once."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.from_numpy(OCCURRING[pad != OCCURRING])
    found = []
    for _ in range(count):
        input_ids = ids[torch.randint(0, len(ids), (4, 9), generator=generator)]
        mask = torch.ones_like(input_ids)
        input_ids[1:, 6:], mask[1:, 6:] = pad, 0
        found.append(
            {"input_ids": input_ids, "attention_mask": mask, "labels": torch.arange(4) % 2}
        )
    return found


def named(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def steps(model: Any, optimizer: torch.optim.Optimizer, given: Any, max_norm: float) -> None:
    model.train()
    for batch in given:
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(named(model).values(), max_norm)
        optimizer.step()
        optimizer.zero_grad()


def trained(model: Any, given: Any, *, sparse: bool, max_norm: float = 1e9) -> Any:
    if sparse:
        install(model, OCCURRING)
    torch.manual_seed(7)  # dropout
    steps(model, new_optimizer(named(model), CONFIG, model), given, max_norm)
    restore(model)
    return model


@pytest.mark.parametrize(("make", "pad"), [(bert, 0), (xlm_roberta, 1)])
def test_sparse_steps_are_the_dense_ones_to_the_bit(make: Any, pad: int) -> None:
    """Dropout on; gradients below the bound on their norm, of which one alone is computed."""
    given = batches(7, pad)
    before = make().state_dict()
    dense, sparse = (trained(make(), given, sparse=mode) for mode in (False, True))
    for name, value in dense.state_dict().items():
        assert torch.equal(value, sparse.state_dict()[name]), name
    word = next(name for name in before if "word_embeddings" in name)
    moved = (sparse.state_dict()[word] != before[word]).any(dim=1).nonzero().ravel()
    assert moved.tolist() == [i for i in OCCURRING.tolist() if i != pad]


def test_sparse_steps_with_a_bounded_norm_are_the_dense_ones_to_rounding() -> None:
    given = batches(7, 0)
    dense, sparse = (
        trained(bert(), given, sparse=mode, max_norm=0.1).state_dict() for mode in (False, True)
    )
    for name, value in dense.items():
        torch.testing.assert_close(sparse[name], value, rtol=1e-4, atol=1e-5)


def test_a_run_that_goes_on_from_its_rows_and_moments_ends_with_the_same_bits() -> None:
    given = batches(8, 0)
    whole = trained(bert(**NO_DROPOUT), given, sparse=True)
    model = bert(**NO_DROPOUT)
    install(model, OCCURRING)
    optimizer = new_optimizer(named(model), CONFIG, model)
    steps(model, optimizer, given[:3], 1e9)
    kept = {name: value.detach().clone() for name, value in named(model).items()}
    moments = optimizer_tensors(optimizer, named(model))
    word = "bert.embeddings.word_embeddings.weight"
    assert kept[word].shape == (len(OCCURRING) + 1, 32)  # and padding
    assert moments[f"{word}/exp_avg"].shape == kept[word].shape

    resumed = bert(**NO_DROPOUT)
    install(resumed, OCCURRING)
    with torch.no_grad():
        for name, value in named(resumed).items():
            value.copy_(kept[name])
    optimizer = new_optimizer(named(resumed), CONFIG, resumed)
    restore_optimizer(optimizer, named(resumed), copy.deepcopy(moments))
    steps(resumed, optimizer, given[3:], 1e9)
    restore(resumed)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_evaluation_sees_the_trained_rows_and_the_pretrained_rest() -> None:
    model = bert()
    everything = torch.arange(300).reshape(10, 30)
    before = model.get_input_embeddings().weight.detach().clone()
    install(model, OCCURRING)
    steps(model, new_optimizer(named(model), CONFIG, model), batches(3, 0), 1e9)
    looked_up = model.eval().get_input_embeddings()(everything).reshape(300, 32)
    moved = (looked_up != before).any(dim=1).nonzero().ravel()
    assert moved.tolist() == OCCURRING.tolist()
    with torch.inference_mode():
        during = model(everything).logits
    restore(model)
    with torch.inference_mode():
        assert torch.equal(model(everything).logits, during)


def test_the_model_is_a_plain_one_again(tmp_path: Path) -> None:
    plain, model = bert(), bert()
    install(model, OCCURRING)
    assert isinstance(model.get_input_embeddings(), OccurringEmbedding)
    restore(model)
    assert type(model.get_input_embeddings()) is torch.nn.Embedding
    assert list(model.state_dict()) == list(plain.state_dict())
    model.save_pretrained(str(tmp_path))
    again = BertForSequenceClassification.from_pretrained(str(tmp_path))
    for name, value in plain.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    restore(model)  # of a model without: nothing to do


def test_no_row_of_an_embedding_is_decayed() -> None:
    model = bert()
    decayed = {
        id(p): group["weight_decay"]
        for group in new_optimizer(named(model), CONFIG, model).param_groups
        for p in group["params"]
    }
    for name, parameter in named(model).items():
        is_matrix = parameter.ndim > 1 and "_embeddings" not in name
        assert decayed[id(parameter)] == (0.1 if is_matrix else 0.0), name


def test_an_embedding_with_another_use_is_refused_by_both_names() -> None:
    model = BertForMaskedLM(BertConfig(**SIZES))
    with pytest.raises(ConfigError, match=r"word_embeddings\.weight and cls\.predictions\.decoder"):
        install(model, OCCURRING)


def test_an_embedding_that_is_more_than_a_table_is_refused() -> None:
    class Scaled(torch.nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) * 2

    model = bert()
    model.set_input_embeddings(Scaled(300, 32))
    with pytest.raises(ConfigError, match="a plain table of word embeddings"):
        install(model, OCCURRING)


@pytest.mark.parametrize("ids", [[3, 300], [-1, 3], []])
def test_ids_that_the_model_has_not_are_refused(ids: list[int]) -> None:
    with pytest.raises(ModelError, match="token ids from 0 to 299"):
        install(bert(), np.array(ids, np.int64))
