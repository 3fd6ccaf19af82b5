"""Real clients against `monoxkit serve` as a user starts it: their answers are the model's own."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.benchmarking.load.config import LoadConfig
from monox_kit.benchmarking.load.run import load
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.models.predict import Model
from tests.serving.conftest import Process, long_text, texts
from tests.tiny_models import LABELS, write_jsonl

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "serving-clients.md"
# As in the examples of the page.
NAME, PAGE_ADDRESS = "student", "127.0.0.1:8080"
EXAMPLES = re.findall(r"```(python|sh)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
TEXTS = texts(3, seed=8)
needs_triton = pytest.mark.skipif(
    find_spec("tritonclient") is None, reason="tritonclient[http] is not installed"
)


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    server = Process(f"{NAME}={bundle}")
    assert server.url, server.told
    yield server.url
    server.kill()


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return mk.load(str(bundle))


def printed(
    command: list[str], *, timeout_s: float = 120, cwd: Path | None = None, **environment: str
) -> str:
    """What a client prints; it is not told to be offline, which would keep it from any address."""
    own = {**os.environ, "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env=own,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def posted(url: str, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and JSON of an answer."""
    address = urlsplit(url)
    link = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    try:
        link.request("POST", path, body, headers)
        answer = link.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())
    finally:
        link.close()


def require_equal(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("language", "code"), EXAMPLES)
def test_the_page_s_examples_run(language: str, code: str, url: str, model: Model) -> None:
    if "tritonclient" in code and find_spec("tritonclient") is None:
        pytest.skip("tritonclient[http] is not installed")
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert PAGE_ADDRESS in code
    own = code.replace(PAGE_ADDRESS, urlsplit(url).netloc)
    command = [sys.executable, "-c", own] if language == "python" else ["sh", "-c", own]
    asked = re.findall(r'"((?:Spiel|Programme)[^"]*)"', code)
    assert asked
    shown = printed(command)
    for one in model.predict(asked):
        assert str(one.label) in shown


def require_hub(answers: Any, model: Model) -> None:
    """The client's answers are the model's."""
    (logits,) = model.logits(TEXTS[:1])
    (probabilities,) = model.probabilities(TEXTS[:1])
    expected = {
        "all": probabilities,
        "sigmoid": 1 / (1 + np.exp(-logits.astype(np.float64))),
        "none": logits,
    }
    for name, values in expected.items():
        by_label = dict(answers[name])
        require_equal([by_label[label] for label in LABELS], values)
        assert [score for _, score in answers[name]] == sorted(by_label.values(), reverse=True)
    assert answers["two"] == answers["all"][:2]
    for name in ("empty", "zero"):
        assert answers[name]["error"] in ("HfHubHTTPError", "BadRequestError"), answers[name]
    assert "top_k" in answers["zero"]["message"]


def test_hugging_face_s_client(url: str, model: Model) -> None:
    script = str(HERE / "hub_client.py")
    require_hub(json.loads(printed([sys.executable, script, url, TEXTS[0]])), model)


@pytest.mark.complete
def test_hugging_face_s_client_of_version_1(url: str, model: Model, tmp_path: Path) -> None:
    # It needs httpx where version 2 has its own, so it stands beside the suite's packages.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path)]
    subprocess.run([*pip, "huggingface_hub>=1,<2"], check=True, capture_output=True)
    script = str(HERE / "hub_client.py")
    answers = json.loads(printed([sys.executable, script, url, TEXTS[0]], PYTHONPATH=str(tmp_path)))
    assert answers["version"].startswith("1.")
    require_hub(answers, model)


@needs_triton
def test_triton_s_client_with_and_without_binary_tensors(url: str, model: Model) -> None:
    asked = [*TEXTS, long_text(60)]
    command = [sys.executable, str(HERE / "triton_client.py"), urlsplit(url).netloc, NAME, *asked]
    answers = json.loads(printed(command))
    probabilities = model.probabilities(asked)
    for form in ("binary", "json"):
        found = answers[form]
        assert found["id"] == "17"
        assert found["label"] == [one.label for one in model.predict(asked)]
        require_equal(found["probabilities"], probabilities)
        require_equal(found["logits"], model.logits(asked))
        assert found["truncated"] == [False, False, False, True]
        assert found["tokens"][3] > found["tokens"][0] > 2
        assert found["abstained"] == [False] * 4
        for row, values in zip(found["best"], probabilities, strict=True):
            value, index, label = row[0].split(":")
            assert (label, int(index)) == (LABELS[values.argmax()], values.argmax())
            require_equal(float(value), values.max())
            assert len(row) == 2
    assert answers["ready"] == [True, True, True]
    assert answers["no model"][0] is False
    assert answers["no model"][1].startswith("404 ")
    assert answers["no version"].startswith("404 ")
    assert answers["compressed"].startswith("400 ")
    assert answers["server"]["name"] == "monoxkit"
    assert answers["model"]["outputs"][1]["shape"] == [-1, len(LABELS)]
    assert answers["index"] == [
        {"name": NAME, "version": answers["model"]["versions"][0], "state": "READY"}
    ]


def test_text_embeddings_inference_by_requests(url: str, model: Model) -> None:
    import requests

    with requests.Session() as session:
        session.trust_env = False

        def asked(**body: Any) -> Any:
            return session.post(f"{url}/predict", json=body, timeout=60)

        batch = asked(inputs=[[text] for text in TEXTS])
        for row, values in zip(batch.json(), model.probabilities(TEXTS), strict=True):
            by_label = {one["label"]: one["score"] for one in row}
            require_equal([by_label[label] for label in LABELS], values)
        one = asked(inputs=TEXTS[0], raw_scores=True)
        require_equal(
            [one.json()[place]["score"] for place in range(3)],
            sorted(model.logits(TEXTS[:1])[0], reverse=True),
        )
        assert int(one.headers["x-compute-tokens"]) > 2
        assert int(one.headers["x-compute-characters"]) == len(TEXTS[0])
        refused = {
            "empty": asked(inputs="  "),
            "long": asked(inputs=long_text(60), truncate=False),
            "rows": asked(inputs=[["a"]] * 1000),
            "form": asked(inputs=3),
        }
        assert {
            name: (one.status_code, one.json()["error_type"]) for name, one in refused.items()
        } == {
            "empty": (400, "Empty"),
            "long": (422, "Validation"),
            "rows": (422, "Validation"),
            "form": (422, "Validation"),
        }


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_vllm_s_form_by_hand(path: str, url: str, model: Model) -> None:
    body = json.dumps({"model": NAME, "input": TEXTS}).encode()
    status, _, answer = posted(url, path, body)
    assert status == 200
    require_equal([one["probs"] for one in answer["data"]], model.probabilities(TEXTS))
    assert [one["label"] for one in answer["data"]] == [one.label for one in model.predict(TEXTS)]
    status, _, answer = posted(url, path, json.dumps({"model": "gpt", "input": "a"}).encode())
    assert (status, answer["error"]["code"]) == (404, 404)


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"inputs": ["a"',
    "no object": b"[]",
    "null": b"null",
    "a number": b"1e999",
    "nothing in it": b"{}",
    "NaN": b'{"inputs": NaN, "input": NaN}',
    "latin-1": '{"inputs": "Zürich", "input": "Zürich"}'.encode("latin-1"),
    "utf-16": '{"inputs": "a", "input": "a"}'.encode("utf-16"),
    "a mark": b"\xef\xbb\xbf[",
    "half a pair of surrogates": b'{"inputs": "\\ud800", "input": "\\ud800"}',
    "a control character": b'{"inputs": "a\x00b", "input": "a\x00b"}',
    "deep lists": b'{"inputs": ' + b"[" * 50_000,
    "deep objects": b'{"x":' * 50_000,
    "lists in lists": b'{"inputs": [[["a"]]], "input": [[["a"]]]}',
    "numbers": b'{"inputs": [1, 2], "input": [1, 2]}',
    "a dictionary": b'{"inputs": {"a": "b"}, "input": {"a": "b"}}',
    "nulls": b'{"inputs": [null], "input": [null]}',
    "true": b'{"inputs": true, "input": true}',
    "empty": b'{"inputs": [], "input": []}',
    "blank": b'{"inputs": ["\\u3000\\t"], "input": ["\\u3000\\t"]}',
    "binary": bytes(range(256)),
    "a form": b"inputs=a&input=a",
    "many": json.dumps({"inputs": [["a"]] * 5000, "input": ["a"] * 5000}).encode(),
    "long": json.dumps({"inputs": "a" * 200_000, "input": "a" * 200_000}).encode(),
}
ROUTES = ("/predict", "/", f"/v2/models/{NAME}/infer", "/classify", "/v1/classify")


def test_a_hundred_malformed_bodies_are_refused_and_the_server_lives(
    url: str, model: Model
) -> None:
    for name, body in MALFORMED.items():
        for path in ROUTES:
            status, headers, answer = posted(url, path, body)
            where = f"{name} to {path}: {status} {answer}"
            assert 400 <= status < 500, where
            assert headers["content-type"] == "application/json", where
            assert "error" in answer, where
            for internal in ("Traceback", "monox_kit", ".py", "msgspec", str(HERE.parents[1])):
                assert internal not in json.dumps(answer), where
    status, _, answer = posted(url, "/predict", json.dumps({"inputs": TEXTS[0]}).encode())
    assert status == 200
    assert answer[0]["label"] == model.predict(TEXTS[:1])[0].label


@pytest.mark.complete
def test_schemathesis_finds_no_500_and_no_answer_that_the_document_does_not_have(
    url: str, model: Model, tmp_path: Path
) -> None:
    # It needs other versions of some packages than the suite has.
    folder = tmp_path / "packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    subprocess.run([*pip, "schemathesis>=4,<5"], check=True, capture_output=True)
    code = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance"
    )
    settings = ["--max-examples", "150", "--checks", checks, "--seed", "1", "--no-color"]
    command = [sys.executable, "-c", code, "run", f"{url}/openapi.json", *settings]
    # It keeps what it found in the folder that it runs in.
    shown = printed(command, timeout_s=580, cwd=tmp_path, PYTHONPATH=str(folder))
    count = re.search(r"(\d+) generated, \d+ passed", shown)
    assert count is not None, shown
    assert int(count[1]) > 1000
    status, _, _ = posted(url, "/predict", json.dumps({"inputs": TEXTS[0]}).encode())
    assert status == 200


@pytest.mark.parametrize("protocol", ["tei", "hugging-face", "kserve", "classify"])
def test_the_load_of_each_protocol_is_answered(protocol: Any, url: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text, "lang": "en"} for text in TEXTS])
    config = LoadConfig(
        url=url,
        protocol=protocol,
        model=NAME,
        test=CorpusConfig(paths=(str(tmp_path / "texts.jsonl"),)),
        rates=(100.0,),
        rows=(1, 3),
        requests=20,
        timeout_s=60.0,
    )
    (step,) = load(config).steps
    assert step.all.statuses == {"200": 20}
