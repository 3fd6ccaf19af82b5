"""Training the word embedding of the tokens that occur, at the cost of these alone.

A multilingual vocabulary is mostly of other languages: of 250,000 rows a run on English text sees
some ten thousand. The others have a gradient of zero at every step. AdamW's moments begin at zero,
so without weight decay they never move: an optimizer over the [K, H] rows that occur makes the
same steps as one over the whole [V, H] table. `install` puts such a table in, `restore` takes it
out.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional

from monox_kit.data import Int64s
from monox_kit.errors import ConfigError, ModelError


class OccurringEmbedding(torch.nn.Module):
    """A word embedding whose parameter is its K rows that occur in training.

    Training looks them up; evaluation looks up the whole table, with the K rows written into it.

    Attributes:
        weight: [K, H], the rows of `ids`.
    """

    def __init__(self, table: torch.nn.Embedding, ids: Int64s) -> None:
        """Args: the whole embedding, [V, H], and the [K] sorted ids that occur in training."""
        super().__init__()
        values = table.weight.detach()
        if len(ids) == 0 or ids[0] < 0 or ids[-1] >= len(values):
            found = f"{ids[0]} to {ids[-1]}" if len(ids) else "none"
            raise ModelError(
                f"word embedding: expected token ids from 0 to {len(values) - 1}, found {found}. "
                "The tokenizer belongs to another model."
            )
        padding = table.padding_idx
        if padding is not None:
            ids = np.union1d(ids, [padding])
        # A list hides the table from `parameters`, from the optimizer and from DDP's broadcasts.
        self._whole = [table]
        self._ids = torch.from_numpy(ids).to(values.device)
        self._places = torch.full((len(values),), -1, device=values.device)
        self._places[self._ids] = torch.arange(len(ids), device=values.device)
        self._padding = None if padding is None else int(np.searchsorted(ids, padding))
        self.weight = torch.nn.Parameter(values[self._ids])

    @property
    def table(self) -> torch.nn.Embedding:
        """The whole embedding; it has the trained values from the last call of `eval` on."""
        return self._whole[0]

    def train(self, mode: bool = True) -> Self:
        """Switch to training, or to evaluation with the rows as trained so far."""
        if not mode:
            with torch.no_grad():
                self.table.weight[self._ids] = self.weight
        return super().train(mode)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """[B, L] token ids to [B, L, H]; while training, ids that occur alone."""
        if not self.training:
            return self.table(input_ids)  # type: ignore[no-any-return]
        return functional.embedding(self._places[input_ids], self.weight, self._padding)


def install(model: Any, ids: Int64s) -> None:
    """Let `model` train the rows `ids` of its word embedding, and no others.

    The parameter keeps its name and has K rows instead of V. Call it once the model is on its
    device, before the optimizer is made.

    Args:
        model: a transformers model.
        ids: [K] int64, sorted, every token id that occurs in training, padding included.

    Raises:
        ConfigError: the embedding's rows are used elsewhere too, or it is more than a table.
        ModelError: the model has no such ids.
    """
    table = model.get_input_embeddings()
    names = [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter is table.weight
    ]
    if len(names) > 1:
        raise ConfigError(
            f"`embeddings` sparse: expected a word embedding with one use, found it shared by "
            f"{' and '.join(names)}. Use `embeddings` frozen or full."
        )
    if type(table) is not torch.nn.Embedding or table.max_norm or table.scale_grad_by_freq:
        raise ConfigError(
            f"`embeddings` sparse: expected a plain table of word embeddings, found {table}. "
            "Use `embeddings` frozen or full."
        )
    occurring = OccurringEmbedding(table, ids)
    model.set_input_embeddings(occurring.train(model.training))


def restore(model: Any) -> None:
    """Put the whole word embedding back, with the rows as they were trained."""
    occurring = model.get_input_embeddings()
    if isinstance(occurring, OccurringEmbedding):
        model.set_input_embeddings(occurring.eval().table)


def embedding_parameters(model: Any) -> set[str]:
    """The names of the parameters of `model` that are tables looked up by id."""
    tables = (torch.nn.Embedding, OccurringEmbedding)
    return {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, tables)
    }
