"""What is sent: bodies of each protocol, made of real texts before the clock runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from monox_kit.benchmarking.load.config import LoadConfig
from monox_kit.corpora.corpus import Corpus
from monox_kit.data import UNKNOWN_LANGUAGE, Document
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.progress import Progress

# Texts of each language that requests are drawn from: more would only take memory.
_MOST_TEXTS = 1_000
_LENGTHS = (64, 256, 1024)


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        body: its JSON.
        num_rows: texts or pairs in it.
        num_characters: of all its texts.
        language: of its texts, which are all in one.
    """

    body: bytes
    num_rows: int
    num_characters: int
    language: str

    @property
    def characters_per_row(self) -> float:
        """The mean over its rows."""
        return self.num_characters / self.num_rows

    @property
    def length(self) -> str:
        """The bucket of its characters a row."""
        found = next((most for most in _LENGTHS if self.characters_per_row <= most), None)
        return f"> {_LENGTHS[-1]}" if found is None else f"<= {found}"


@dataclass(frozen=True, slots=True)
class Form:
    """How a protocol asks and answers.

    Attributes:
        path: of the address.
        path_of_model: of one model of several; {} stands for its name.
        body: the request's JSON value of documents and the model's name.
        count: how many rows an answer's JSON value is of.
    """

    path: str
    path_of_model: str
    body: Callable[[Sequence[Document], str | None], Any]
    count: Callable[[Any], int]

    def path_of(self, model: str | None) -> str:
        """The path for one model, or for the only one."""
        return self.path if model is None else self.path_of_model.format(quote(model, safe=""))


def _tei(documents: Sequence[Document], model: str | None) -> Any:
    return {"inputs": [_texts(one) for one in documents]}


def _hugging_face(documents: Sequence[Document], model: str | None) -> Any:
    inputs = [
        one.text if one.text_pair is None else {"text": one.text, "text_pair": one.text_pair}
        for one in documents
    ]
    return {"inputs": inputs, "parameters": {}}


def _kserve(documents: Sequence[Document], model: str | None) -> Any:
    columns = {"text": [one.text for one in documents]}
    if documents[0].text_pair is not None:
        columns["text_pair"] = [one.text_pair or "" for one in documents]
    return {
        "inputs": [
            {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": texts}
            for name, texts in columns.items()
        ],
        "outputs": [{"name": "label"}],
    }


def _classify(documents: Sequence[Document], model: str | None) -> Any:
    if any(one.text_pair is not None for one in documents):
        raise ConfigError(
            "`protocol` classify: it has no text pairs, and the files hold pairs. Give `protocol` "
            "tei."
        )
    body = {"input": [one.text for one in documents]}
    return body if model is None else {**body, "model": model}


FORMS: Mapping[str, Form] = {
    "tei": Form("/predict", "/models/{}/predict", _tei, len),
    "hugging-face": Form("/", "/models/{}", _hugging_face, len),
    "kserve": Form(
        "/v2/models",  # never used: `LoadConfig` asks for the model
        "/v2/models/{}/infer",
        _kserve,
        lambda answer: int(answer["outputs"][0]["shape"][0]),
    ),
    "classify": Form("/classify", "/classify", _classify, lambda answer: len(answer["data"])),
}


class Texts:
    """The texts of the files, by language, from which requests are drawn.

    Raises:
        CorpusError: a row cannot be used, or there is none.
    """

    def __init__(self, config: LoadConfig, progress: Progress) -> None:
        self._config = config
        self._by_language: dict[str, list[Document]] = {}
        for document, tag in Corpus(config.test, progress).with_languages():
            self._by_language.setdefault(tag or UNKNOWN_LANGUAGE, []).append(document)
        for language, found in self._by_language.items():
            places = np.linspace(0, len(found) - 1, min(_MOST_TEXTS, len(found))).astype(int)
            self._by_language[language] = [found[place] for place in places]
        if not self._by_language:
            raise CorpusError("`test`: the files hold no text. Give files with texts.")

    def requests(self, count: int, generator: np.random.Generator) -> list[Request]:
        """Requests in a random order: languages and numbers of rows are equally frequent.

        Args:
            count: how many.
            generator: draws them.
        """
        languages, form = list(self._by_language), FORMS[self._config.protocol]
        found = []
        for _ in range(count):
            language = languages[generator.integers(len(languages))]
            size = self._config.rows[generator.integers(len(self._config.rows))]
            texts = self._by_language[language]
            documents = [texts[place] for place in generator.integers(len(texts), size=size)]
            body = json.dumps(form.body(documents, self._config.model)).encode()
            characters = sum(len(text) for one in documents for text in _texts(one))
            found.append(Request(body, size, characters, language))
        return found


def _texts(document: Document) -> list[str]:
    """One text or two."""
    return [text for text in (document.text, document.text_pair) if text is not None]
