"""The size of a model trimmed for some languages, and how it reads texts it was not trimmed for.

Of each file four rows in five are the corpus, the others are unseen.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as RustTokenizer

import harness
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Document
from monox_kit.models.folder import open_folder
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.trimming.config import TrimConfig
from monox_kit.trimming.run import trim
from monox_kit.trimming.vocabulary import Vocabulary

_UNSEEN_EVERY = 5  # of the rows of a file


def main() -> None:
    """Trim a model for all files at once and write down what is left."""
    parser = harness.parser(__file__, __doc__)
    parser.add_argument("--model", default="packaged:e5-small", help="a PyTorch folder or package")
    parser.add_argument("--corpus", nargs="+", required=True, help="a file of each language")
    parser.add_argument("--coverage", type=float, default=1.0)
    parser.add_argument("--max-length", type=harness.positive, default=128)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        unseen = _split(arguments.corpus, Path(work))
        config = TrimConfig(
            model=arguments.model,
            corpus=CorpusConfig(paths=(f"{work}/text.*.jsonl",)),
            coverage=arguments.coverage,
            max_length=arguments.max_length,
        )
        small = Path(work) / "small"
        summary = trim(config, small)
        source = open_folder(arguments.model)
        tokenizers = [Tokenizer(folder, 1 << 20) for folder in (source.path, small)]
        result = {
            "model": arguments.model,
            "coverage": arguments.coverage,
            "max_length": arguments.max_length,
            "files_mb": [_megabytes(source.path), _megabytes(small)],
            "summary": {**summary.to_json(), "path": ""},
            "unseen": {tag: _survive(rows, *tokenizers) for tag, rows in unseen.items()},
        }
    harness.publish(arguments, result)


def _split(paths: Sequence[str], folder: Path) -> dict[str, list[Document]]:
    """Write the corpus's files into a folder; the rows that are left out, by language."""
    corpus = Corpus(CorpusConfig(paths=tuple(paths)))
    unseen: dict[str, list[Document]] = {}
    for name, tag in zip(corpus.files, corpus.languages):
        rows = list(Corpus(CorpusConfig(paths=(name,))).documents())
        kept = [row for at, row in enumerate(rows) if at % _UNSEEN_EVERY]
        lines = (json.dumps({"text": row.text}, ensure_ascii=False) + "\n" for row in kept)
        (folder / f"text.{tag}.jsonl").write_text("".join(lines), encoding="utf-8")
        unseen[tag or "und"] = rows[::_UNSEEN_EVERY]
    return unseen


def _survive(rows: Sequence[Document], whole: Tokenizer, small: Tokenizer) -> dict[str, float]:
    """How texts that the model was not trimmed for are read."""
    texts = [row.text for row in rows]
    read, unknown = [], []
    for tokenizer in (whole, small):
        plain = RustTokenizer.from_str(tokenizer.content)
        unknown_id = Vocabulary(tokenizer.content, Path()).unknown_id
        ids = [each.ids for each in plain.encode_batch(texts)]
        unknown.append(sum(id == unknown_id for each in ids for id in each) / sum(map(len, ids)))
        # Not `tokens`, where an unknown one of Unigram is called what was read.
        read.append([[plain.id_to_token(id) for id in each] for each in ids])
    before, after = read
    return {
        "num_rows": len(texts),
        "same_rows": round(sum(one == other for one, other in zip(before, after)) / len(texts), 4),
        "tokens": round(sum(map(len, after)) / sum(map(len, before)), 4),
        "unknown_before": round(unknown[0], 6),
        "unknown_after": round(unknown[1], 6),
    }


def _megabytes(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 1)


if __name__ == "__main__":
    main()
