"""Tiny random models with real tokenizers, made on the spot: no network, no downloads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from monox_kit.corpora.corpus import CorpusConfig

# The first 18 carry no topic.
# fmt: off
WORDS = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota",
    "kappa", "lambda", "mu", "nu", "xi", "omicron", "pi", "rho", "sigma",
    "game", "mail", "font", "kernel", "sound", "video", "editor", "database", "paquet",
    "spiel", "schrift", "jeu", "courrier", "police",
)
# fmt: on
LABELS = ("games", "mail", "text")


def write_tokenizer(folder: Path, *, token_types: bool, padding_side: str = "right") -> int:
    """A WordPiece tokenizer over `WORDS`; returns the size of its vocabulary."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side=padding_side,
        model_input_names=names if token_types else ["input_ids", "attention_mask"],
    )
    fast.save_pretrained(str(folder))
    return tokenizer.get_vocab_size()


def bert_encoder(folder: Path, seed: int = 0) -> Path:
    """A 2-layer BERT encoder without a head."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, token_types=True)
    torch.manual_seed(seed)
    BertModel(_bert(vocabulary)).save_pretrained(str(folder))
    return folder


def bert_classifier(folder: Path, labels: tuple[str, ...] = LABELS, seed: int = 0) -> Path:
    """A 2-layer BERT classifier with random weights, scaled so that its logits differ."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, token_types=True)
    config = _bert(vocabulary)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    torch.manual_seed(seed)
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    model.save_pretrained(str(folder))
    return folder


def balanced_classifier(folder: Path, rows: list[dict[str, str]], seed: int = 3) -> Path:
    """A 2-layer BERT classifier that gives all of `LABELS` to the texts of `rows`."""
    bert_classifier(folder, seed=seed)
    # A random model prefers one class: its bias is moved until all three occur.
    model = BertForSequenceClassification.from_pretrained(str(folder)).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    inputs = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    with torch.inference_mode():
        model.classifier.bias -= model(**inputs).logits.mean(dim=0)
    model.save_pretrained(str(folder))
    return folder


def off_by_a_little(precision: str, source: Path, folder: Path, calibration: object) -> None:
    """A quantizer whose graph moves every logit by up to 0.05, with no pattern that a row shows."""
    model = onnx.load(str(source / "model.onnx"))
    output = model.graph.node[-1].output[0]
    model.graph.node[-1].output[0] = "exact"
    for name, value in (("fast", 997.0), ("little", 0.05)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    for operator, inputs, result in (
        ("Mul", ["exact", "fast"], "phase"),
        ("Sin", ["phase"], "wave"),
        ("Mul", ["wave", "little"], "error"),
        ("Add", ["exact", "error"], output),
    ):
        model.graph.node.append(onnx.helper.make_node(operator, inputs, [result]))
    onnx.save(model, str(folder / "model.onnx"))


def roberta_encoder(folder: Path, seed: int = 0) -> Path:
    """A 2-layer RoBERTa encoder: no segment ids, positions with an offset."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder, token_types=False)
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=66,
        type_vocab_size=1,
        pad_token_id=0,
    )
    RobertaModel(config).save_pretrained(str(folder))
    return folder


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    """The rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def corpus_of(*paths: Path) -> CorpusConfig:
    """Files of rows, read as they are."""
    return CorpusConfig(paths=tuple(str(path) for path in paths))


def weights(folder: Path) -> dict[str, np.ndarray]:
    """A saved model's weights by name."""
    return load_file(str(folder / "model.safetensors"))


def labelled_rows(count: int, seed: int = 0, *, pairs: bool = False) -> list[dict[str, str]]:
    """Texts of 1 to 12 words whose label is the topic word among them."""
    generator = torch.Generator().manual_seed(seed)
    topics = {"games": "game", "mail": "mail", "text": "font"}
    rows = []
    for index in range(count):
        label = LABELS[index % len(LABELS)]
        length = int(torch.randint(1, 12, (1,), generator=generator))
        picks = torch.randint(0, 18, (length,), generator=generator).tolist()
        words = [*(WORDS[pick] for pick in picks), topics[label]]
        row = {"id": f"row-{index}", "text": " ".join(words), "label": label, "lang": "en"}
        if pairs:
            row["text_pair"] = WORDS[index % 18]
        rows.append(row)
    return rows


def _bert(vocabulary: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )


def tokens_seen(graph: Path, feed: dict[str, np.ndarray]) -> list[int]:
    """How many tokens of each row every product with a matrix of weights sees, in order."""
    watched = onnx.load(str(graph))
    weights = {one.name for one in watched.graph.initializer if len(one.dims) == 2}
    names = [
        node.input[0]
        for node in watched.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    session = onnxruntime.InferenceSession(watched.SerializeToString())
    values = session.run(names, {one.name: feed[one.name] for one in session.get_inputs()})
    return [value.shape[1] for value in values]
