"""A tokenizer's vocabulary cut down: which tokens hang together, and the file without the others.

What is kept decides nothing about texts whose tokens are all kept: they are read as before.

- BPE: the merges that lead to a token depend on its characters alone, and all of them are kept. Of
  the merges that are left, the first is then the same at every step.
- WordPiece takes the longest piece that fits, which is the same one. A word that no pieces fit
  stays unknown where each character of a piece is a piece, as in every vocabulary that was
  trained: such a word has a character that is in no piece at all.
- Unigram takes the best path through the pieces that fit. Paths are only lost, except through the
  unknown token, which costs 10 more than the least likely piece of all: that one is kept too, so
  that no such path beats the one through the piece whose place it takes.

Source: `merge_word` of models/bpe/model.rs, models/wordpiece/mod.rs and `encode_optimized` of
models/unigram/model.rs in the `tokenizers` package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import pre_tokenizers

from monox_kit.data import Int64s
from monox_kit.errors import ModelError
from monox_kit.models.tokenizer_files import parse_tokenizer

_BPE, _UNIGRAM, _WORD_PIECE = "BPE", "Unigram", "WordPiece"


class Cut(NamedTuple):
    """A vocabulary cut down.

    Attributes:
        content: the `tokenizer.json`.
        old_ids: [V] int64, what each of its ids was before.
    """

    content: str
    old_ids: Int64s


class Vocabulary:
    """The vocabulary of a tokenizer.

    Attributes:
        unknown_id: of the unknown token; None where there is none.
    """

    def __init__(self, content: str, where: Path) -> None:
        """Read the text of a `tokenizer.json`.

        Raises:
            ModelError: the tokenizer is of another kind than the three that can be cut down.
        """
        self._content: dict[str, Any] = json.loads(content)
        self._where = where
        model = self._model = self._content["model"]
        if model["type"] not in (_BPE, _UNIGRAM, _WORD_PIECE):
            raise ModelError(
                f"{where}: a tokenizer of the kind {model['type']} cannot be trimmed. Give a "
                f"model with one of {_BPE}, {_UNIGRAM} or {_WORD_PIECE}."
            )
        vocab = model["vocab"]
        pairs = enumerate(piece for piece, _ in vocab) if isinstance(vocab, list) else None
        self._tokens: dict[int, str] = dict(pairs or ((id, token) for token, id in vocab.items()))
        self._ids = {token: id for id, token in self._tokens.items()}
        self._added: dict[int, str] = {
            one["id"]: one["content"] for one in self._content["added_tokens"]
        }
        self.unknown_id: int | None = (
            model["unk_id"] if model["type"] == _UNIGRAM else self._ids.get(model["unk_token"])
        )

    def cut(self, wanted: Collection[int]) -> Cut:
        """The tokenizer with the wanted tokens, those that they need, and no others.

        A special token keeps its id where the vocabulary is still that long; where it is not, the
        last ones move up, in their order.

        Raises:
            ModelError: the `tokenizers` package numbers the tokens that are left otherwise.
        """
        known = self._tokens.keys() | self._added.keys()
        kept = self._with_parts({*wanted, *self._required()}) & known
        in_model = sorted(kept & self._tokens.keys())
        special = sorted(kept & self._tokens.keys() & {*self._added, self.unknown_id})
        order = [*_in_place(in_model, special), *sorted(kept - self._tokens.keys())]
        new = {old: at for at, old in enumerate(order)}
        content = {
            **self._content,
            "model": self._cut_model(order[: len(in_model)], new),
            "added_tokens": sorted(
                ({**one, "id": new[one["id"]]} for one in self._content["added_tokens"]),
                key=lambda one: one["id"],
            ),
            "post_processor": _renumbered(self._content["post_processor"], new.__getitem__),
        }
        text = json.dumps(content, ensure_ascii=False)
        tokenizer = parse_tokenizer(text, self._where)
        for at, old in enumerate(order):
            token = self._added.get(old, self._tokens.get(old, ""))
            if tokenizer.token_to_id(token) != at:
                raise ModelError(
                    f"{self._where}: the token {token!r} of id {old} should have id {at} in the "
                    f"trimmed tokenizer, and it has {tokenizer.token_to_id(token)}. The same token "
                    "may stand twice in tokenizer.json: save the tokenizer again."
                )
        return Cut(text, np.array(order, np.int64))

    def _required(self) -> set[int]:
        """What is kept whatever is wanted."""
        found = set(self._added)
        if self.unknown_id is not None:
            found.add(self.unknown_id)

        def note(id: int) -> int:
            found.add(id)
            return id

        _renumbered(self._content["post_processor"], note)  # a template's need not be added tokens
        names: Iterable[str] = ()
        if self._model.get("byte_fallback"):
            names = (f"<0x{byte:02X}>" for byte in range(256))
        elif self._model["type"] == _BPE and self._is_byte_level():
            names = pre_tokenizers.ByteLevel.alphabet()
        found.update(self._ids[name] for name in names if name in self._ids)
        if self._model["type"] == _UNIGRAM:
            scores = [score for _, score in self._model["vocab"]]
            found.add(scores.index(min(scores)))
            if self.unknown_id is None:  # then a character without a piece is an error
                found.update(id for id, piece in self._tokens.items() if len(piece) == 1)
        return found

    def _is_byte_level(self) -> bool:
        parts = [self._content["pre_tokenizer"], self._content["normalizer"]]
        return '"ByteLevel"' in json.dumps(parts)

    def _with_parts(self, ids: set[int]) -> set[int]:
        """The ids with those of the tokens that theirs are made of."""
        tokens = {self._tokens[id] for id in ids if id in self._tokens}
        parts: set[str] = set()
        if self._model["type"] == _BPE:
            merges = _Merges(self._model)
            for token in tokens:
                parts |= merges.steps(token)
        else:
            # A word that is new can still be spelled in the characters of the kept pieces.
            prefix = self._model.get("continuing_subword_prefix", "")
            characters = set("".join(token.removeprefix(prefix) for token in tokens))
            parts = characters | {prefix + one for one in characters}
        return ids | {self._ids[part] for part in parts if part in self._ids}

    def _cut_model(self, order: list[int], new: Mapping[int, int]) -> dict[str, Any]:
        model: dict[str, Any] = dict(self._model)
        if model["type"] == _UNIGRAM:
            model["vocab"] = [model["vocab"][old] for old in order]
            if self.unknown_id is not None:
                model["unk_id"] = new[self.unknown_id]
            return model
        model["vocab"] = {self._tokens[old]: new[old] for old in order}
        if model["type"] == _BPE:
            merges = _Merges(model)
            model["merges"] = [
                pair
                for pair in model["merges"]
                if {*pair, merges.joined(*pair)} <= model["vocab"].keys()
            ]
        return model


class _Merges:
    """The merges of a BPE model, and what they make of characters."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
        self._prefix: str = model["continuing_subword_prefix"] or ""
        self._suffix: str = model["end_of_word_suffix"] or ""

    def joined(self, left: str, right: str) -> str:
        """The token that two become."""
        return left + right[len(self._prefix) :]

    def steps(self, token: str) -> set[str]:
        """Every token on the way from characters to this one, itself among them.

        It alone where merges never make it: then it stands for a whole word (`ignore_merges`), or
        is never given.
        """
        symbols = self._characters(token)
        made = set(symbols)
        while len(symbols) > 1:
            ranks = [self._ranks.get(pair, len(self._ranks)) for pair in pairwise(symbols)]
            first = min(ranks)
            if first == len(self._ranks):
                break
            at = ranks.index(first)
            symbols[at : at + 2] = [self.joined(symbols[at], symbols[at + 1])]
            made.add(symbols[at])
        return made if symbols == [token] else {token}

    def _characters(self, token: str) -> list[str]:
        is_inside = bool(self._prefix) and token.startswith(self._prefix)
        body = token[len(self._prefix) :] if is_inside else token
        is_end = bool(self._suffix) and body.endswith(self._suffix)
        letters = list(body[: len(body) - len(self._suffix)] if is_end else body)
        if is_end and letters:
            letters[-1] += self._suffix
        first = 0 if is_inside else 1
        return letters[:first] + [self._prefix + one for one in letters[first:]]


def _in_place(ids: list[int], special: list[int]) -> list[int]:
    """The ids in order, but for the special ones, which stand at their own place where it is there.

    Both are sorted, and the special ones are among the others.
    """
    places: dict[int, int] = {}
    place = len(ids)
    for id in reversed(special):
        place = min(id, place - 1)
        places[place] = id
    others = iter(sorted({*ids} - {*special}))
    return [places[at] if at in places else next(others) for at in range(len(ids))]


def _renumbered(processor: dict[str, Any] | None, new: Callable[[int], int]) -> Any:
    """A post-processor whose ids are new."""
    if processor is None:
        return None
    changed = dict(processor)
    if "processors" in changed:
        changed["processors"] = [_renumbered(one, new) for one in changed["processors"]]
    for end in ("sep", "cls"):
        if end in changed:
            token, id = changed[end]
            changed[end] = [token, new(id)]
    if "special_tokens" in changed:
        changed["special_tokens"] = {
            name: {**one, "ids": [new(id) for id in one["ids"]]}
            for name, one in changed["special_tokens"].items()
        }
    return changed
