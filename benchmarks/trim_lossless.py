"""Trimming is lossless: every text whose tokens all survive is read, and scored, as before.

Three models are trimmed for four rows in five of each file: a real one, with the tokenizer that it
has (the multilingual E5: Unigram), and two small random ones whose WordPiece and byte-level BPE
tokenizers are trained on the same files. Then *all* rows are read with both tokenizers by the
`tokenizers` package itself, and those whose tokens all survive are scored with both models in
PyTorch: token strings must be equal, and logits in every bit. One difference, and the script fails.

    python benchmarks/trim_lossless.py --corpus data/test.*.jsonl
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import harness
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Document, LabelSet
from monox_kit.models.folder import open_folder
from monox_kit.models.load import load_model, open_tokenizer
from monox_kit.models.scoring import score
from monox_kit.models.torch_backend import new_classifier, save_classifier
from monox_kit.trimming.config import TrimConfig
from monox_kit.trimming.run import trim

_UNSEEN_EVERY = 5  # of the rows of a file
_LABELS = LabelSet(tuple("abcdefgh"))
_SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 514,
    "num_labels": len(_LABELS),
    "pad_token_id": 0,
}
# Rows that are tokenized and scored together.
_WINDOW_ROWS = 1024


def main() -> None:
    """Trim the models, compare them with the whole ones and write down what was found."""
    parser = harness.parser(__file__, __doc__)
    parser.add_argument("--model", default="packaged:e5-small", help="a PyTorch folder or package")
    parser.add_argument("--corpus", nargs="+", required=True, help="a file of each language")
    parser.add_argument("--max-length", type=harness.positive, default=32, help="of scored texts")
    parser.add_argument("--vocabulary", type=harness.positive, default=60_000, help="of the others")
    parser.add_argument("--tokenizers", nargs="+", choices=_WRITERS, default=list(_WRITERS))
    arguments = parser.parse_args()
    rows = _rows(arguments.corpus)
    with tempfile.TemporaryDirectory() as work:
        corpus = _write_corpus(rows, Path(work) / "corpus")
        found = {}
        for name in arguments.tokenizers:
            folder = Path(work) / name
            folder.mkdir()
            _WRITERS[name](folder, rows, arguments)
            found[name] = _compared(folder, corpus, rows, arguments)
            harness.note(f"{name}: {found[name]['total']}")
    result = {"model": arguments.model, "max_length": arguments.max_length, "tokenizers": found}
    harness.publish(arguments, result)


def _rows(paths: Sequence[str]) -> dict[str, list[Document]]:
    """All rows by language; a file is of one."""
    corpus = Corpus(CorpusConfig(paths=tuple(paths)))
    return {
        tag or "und": list(Corpus(CorpusConfig(paths=(name,))).documents())
        for name, tag in zip(corpus.files, corpus.languages)
    }


def _write_corpus(rows: dict[str, list[Document]], folder: Path) -> CorpusConfig:
    """What the models are trimmed for: four rows in five of each language."""
    folder.mkdir()
    for tag, documents in rows.items():
        kept = [row for at, row in enumerate(documents) if at % _UNSEEN_EVERY]
        lines = (json.dumps({"text": row.text}, ensure_ascii=False) + "\n" for row in kept)
        (folder / f"text.{tag}.jsonl").write_text("".join(lines), encoding="utf-8")
    return CorpusConfig(paths=(f"{folder}/text.*.jsonl",))


def _write_given(
    folder: Path, _rows: dict[str, list[Document]], arguments: argparse.Namespace
) -> None:
    """The model that was asked for, with a new head."""
    source = open_folder(arguments.model)
    save_classifier(new_classifier(source, _LABELS, 1), open_tokenizer(source, None), folder)


def _write_bert(
    folder: Path, rows: dict[str, list[Document]], arguments: argparse.Namespace
) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=arguments.vocabulary, special_tokens=_SPECIAL, show_progress=False
    )
    size = _save_tokenizer(folder, tokenizer, trainer, rows)
    config = BertConfig(vocab_size=size, **_SIZES)
    _save_random(folder, BertForSequenceClassification, config)


def _write_roberta(
    folder: Path, rows: dict[str, list[Document]], arguments: argparse.Namespace
) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=arguments.vocabulary,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    size = _save_tokenizer(folder, tokenizer, trainer, rows)
    config = RobertaConfig(vocab_size=size, bos_token_id=2, eos_token_id=3, **_SIZES)
    _save_random(folder, RobertaForSequenceClassification, config)


def _save_tokenizer(
    folder: Path, tokenizer: Any, trainer: Any, rows: dict[str, list[Document]]
) -> int:
    """Train a tokenizer on all rows and save it; the size of its vocabulary."""
    texts = (row.text for documents in rows.values() for row in documents)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    kind: Any = PreTrainedTokenizerFast
    fast = kind(tokenizer_object=tokenizer, **dict(zip(names, _SPECIAL)))
    fast.save_pretrained(str(folder))
    return int(tokenizer.get_vocab_size())


def _save_random(folder: Path, kind: Any, config: Any) -> None:
    torch.manual_seed(1)
    kind(config).save_pretrained(str(folder))


_WRITERS: dict[str, Callable[[Path, dict[str, list[Document]], argparse.Namespace], None]] = {
    "model": _write_given,
    "WordPiece": _write_bert,
    "byte-level BPE": _write_roberta,
}


def _compared(
    folder: Path,
    corpus: CorpusConfig,
    rows: dict[str, list[Document]],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """What trimming a model means for every row, by language.

    Raises:
        SystemExit: a text whose tokens all survive has other tokens or other logits.
    """
    small = folder / "small"
    summary = trim(TrimConfig(model=str(folder), corpus=corpus), small)
    plain = [Tokenizer.from_file(str(each / "tokenizer.json")) for each in (folder, small)]
    opened = [load_model(str(each), max_length=arguments.max_length) for each in (folder, small)]
    kept = set(plain[1].get_vocab())
    by_language: dict[str, Counter[str]] = {}
    for tag, documents in rows.items():
        count = by_language[tag] = Counter(rows=len(documents))
        for window in _windows(documents):
            before, after = (_strings(each, window) for each in plain)
            survive = [set(tokens) <= kept for tokens in before]
            differ = [
                row.row for row, is_kept, one, other in zip(window, survive, before, after)
                if is_kept and one != other
            ]  # fmt: skip
            if differ:
                raise SystemExit(f"{tag}: rows with other tokens: {differ[:10]}")
            scored = [row for row, is_kept in zip(window, survive) if is_kept]
            if scored:
                one, other = (score(each.classifier, each.tokenizer, scored) for each in opened)
                if not np.array_equal(one.logits, other.logits):
                    raise SystemExit(f"{tag}: other logits among rows {scored[0].row} and on")
            count["equal"] += len(scored)
        harness.note(f"{folder.name} {tag}: {dict(count)}")
    total = sum(by_language.values(), Counter())
    return {
        "tokens_before": summary.num_tokens_before,
        "tokens_after": summary.num_tokens,
        "languages": {tag: dict(count) for tag, count in by_language.items()},
        "total": {"languages": len(by_language), **total},
    }


def _windows(documents: list[Document]) -> Iterator[list[Document]]:
    return (
        documents[start : start + _WINDOW_ROWS] for start in range(0, len(documents), _WINDOW_ROWS)
    )


def _strings(tokenizer: Tokenizer, documents: list[Document]) -> list[list[str | None]]:
    """The tokens of whole texts; not `tokens`, where an unknown one of Unigram is what was read."""
    encoded = tokenizer.encode_batch([row.text for row in documents])
    return [[tokenizer.id_to_token(id) for id in each.ids] for each in encoded]


if __name__ == "__main__":
    main()
