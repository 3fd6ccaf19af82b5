"""The server in this process: answers, limits, keys, faults, swaps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import monox_kit as mk
from monox_kit.data import Logits, TokenBatch
from monox_kit.errors import ModelError
from monox_kit.models.calibration import STAND_IN
from monox_kit.models.graph_classifier import GraphClassifier
from monox_kit.serving import sessions
from tests.serving.conftest import MAX_LENGTH, NAME, Notes, long_text, texts

INFER = f"/v2/models/{NAME}/infer"
KEY = "0123456789abcdef"


def logits_of(client: Any, rows: list[str]) -> Logits:
    """The logits that the server gives for texts."""
    answer = client.post(INFER, json=question(rows))
    assert answer.status_code == 200, answer.text
    (found,) = [one for one in answer.json()["outputs"] if one["name"] == "logits"]
    return np.array(found["data"], np.float32).reshape(found["shape"])


def question(rows: list[str]) -> dict[str, Any]:
    return {
        "inputs": [{"name": "text", "shape": [len(rows)], "datatype": "BYTES", "data": rows}],
        "outputs": [{"name": "logits"}, {"name": "probabilities"}, {"name": "label"}],
    }


def test_answers_are_those_of_the_loaded_model(served: Callable[..., Any], bundle: Path) -> None:
    rows = [*texts(40), long_text(60)]
    model = mk.load(str(bundle))
    with served() as (client, _):
        found = logits_of(client, rows)
        scores = client.post("/", json={"inputs": rows}).json()
    assert np.abs(found - model.logits(rows)).max() <= 1e-5
    for mine, theirs in zip(scores, model.predict(rows, top_k=3), strict=True):
        assert [one["label"] for one in mine] == [label for label, _ in theirs.top]
        assert [one["score"] for one in mine] == pytest.approx(
            [score for _, score in theirs.top], abs=1e-5
        )


def test_many_at_once_get_their_own_answers(served: Callable[..., Any], bundle: Path) -> None:
    rows = texts(300, seed=1)
    alone = mk.load(str(bundle)).logits(rows)
    with served(max_wait_s=100.0, timeout_s=60.0, shutdown_s=90.0) as (client, site):
        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(lambda text: logits_of(client, [text])[0], rows))
        assert site.admission.held == 0 and site.engines[NAME].lanes.tokens == 0
    assert np.abs(np.stack(found) - alone).max() <= 1e-4


def test_a_calibrated_bundle_answers_by_the_language_of_the_request(
    served: Callable[..., Any], own_bundle: Path
) -> None:
    record = json.loads((own_bundle / "monoxkit.json").read_text())
    record["calibration"] = {
        "temperatures": {"de": [0.5], STAND_IN: [4.0]},
        "precision": 0.9,
        "thresholds": {"de": 0.1, STAND_IN: 0.999},
    }
    (own_bundle / "monoxkit.json").write_text(json.dumps(record))
    model = mk.load(str(own_bundle))
    rows = texts(3)
    with served(own_bundle) as (client, _):
        for header, language in (({}, None), ({"content-language": "de-AT, en"}, "de")):
            scores = client.post("/", json={"inputs": rows}, headers=header).json()
            expected = model.probabilities(rows, language=language).max(axis=1)
            assert [row[0]["score"] for row in scores] == pytest.approx(expected, abs=1e-5)
        assert 'language="de"' in client.get("/metrics").text


def test_a_language_is_no_longer_than_a_tag(served: Callable[..., Any]) -> None:
    with served() as (client, _):
        for language, status in (("zh-Hant-TW", 200), ("no such tag", 200), ("a-" * 40, 400)):
            body = {**question(["mail"]), "parameters": {"language": language}}
            assert client.post(INFER, json=body).status_code == status, language


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"inputs": [["a"]] * 5}, 422),
        ({"inputs": "x" * 201}, 422),
        ({"inputs": [["alpha " * 20]] * 4}, 422),
        ({"inputs": "alpha " * 30, "truncate": False}, 422),
        ({"inputs": "   "}, 400),
        ({"inputs": []}, 400),
        ({"inputs": "alpha", "padding": "x" * 3000}, 413),
    ],
    ids=["rows", "characters", "tokens", "length", "blank", "none", "body"],
)
def test_what_is_beyond_a_limit_is_refused(
    served: Callable[..., Any], body: dict[str, Any], status: int
) -> None:
    limits = {"max_rows": 4, "max_characters": 200, "max_tokens": 60, "max_body_bytes": 2048}
    with served(**limits) as (client, site):
        answer = client.post("/predict", json=body)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]
        assert site.admission.held == 0
        assert client.post("/predict", json={"inputs": "alpha game"}).status_code == 200


def test_a_model_of_single_texts_takes_no_pairs(
    served: Callable[..., Any], own_bundle: Path
) -> None:
    record = json.loads((own_bundle / "monoxkit.json").read_text())
    (own_bundle / "monoxkit.json").write_text(json.dumps({**record, "has_pairs": False}))
    with served(own_bundle) as (client, _):
        assert client.post("/predict", json={"inputs": ["mail", "game"]}).status_code == 422
        mixed = {"inputs": [["mail"], ["mail", "game"]]}
        assert client.post("/predict", json=mixed).status_code == 422
        assert client.post("/predict", json={"inputs": ["mail"]}).status_code == 200


def test_truncation_is_the_requests_or_the_servers(served: Callable[..., Any]) -> None:
    text = long_text(60) + " game"
    with served() as (client, _):
        cut = client.post("/predict", json={"inputs": text}).json()
        left = client.post("/predict", json={"inputs": text, "truncation_direction": "left"})
        assert left.json() != cut
        tail = " ".join(text.split()[-(MAX_LENGTH - 2) :])
        assert left.json() == client.post("/predict", json={"inputs": tail}).json()
    with served(truncate=False) as (client, _):
        assert client.post("/predict", json={"inputs": text}).status_code == 422
        asked = {"inputs": text, "truncate": True}
        assert client.post("/predict", json=asked).json() == cut


def test_a_body_without_a_length_is_counted_as_it_comes(served: Callable[..., Any]) -> None:
    with served(max_body_bytes=2048) as (client, _):
        parts = (b" " * 1000 for _ in range(4))
        assert client.post("/predict", content=parts).status_code == 413
        assert client.post("/predict", content=iter([b'{"inputs":', b'"mail"}'])).status_code == 200


def test_nobody_gets_in_without_a_key(
    served: Callable[..., Any], tmp_path: Path, notes: Notes
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n")
    headers = {"authorization": f"Bearer {KEY}"}
    with served(keys=path) as (client, _):
        for method, route in (
            ("POST", "/predict"),
            ("POST", "/"),
            ("POST", INFER),
            ("POST", "/classify"),
            ("GET", "/metrics"),
            ("GET", "/info"),
            ("PUT", f"/v2/repository/models/{NAME}"),
        ):
            for given in ({}, {"authorization": f"Bearer {KEY}x"}):
                answer = client.request(method, route, headers=given, content=b"{}")
                assert (answer.status_code, method, route) == (401, method, route)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert KEY not in answer.text
        assert client.get("/health/ready").status_code == 200
        assert client.post("/predict", json={"inputs": "mail"}, headers=headers).status_code == 200
        assert KEY not in client.get("/metrics", headers=headers).text
    assert not any(KEY in line for line in notes.lines)


def test_a_reload_changes_keys_and_keeps_what_cannot_be_replaced(
    served: Callable[..., Any], tmp_path: Path, own_bundle: Path, notes: Notes
) -> None:
    path, other = tmp_path / "keys", "fedcba9876543210"

    def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}"}
        return int(client.post("/predict", json={"inputs": "mail"}, headers=headers).status_code)

    path.write_text(f"{KEY}\n")
    with served(own_bundle, keys=path) as (client, site):
        assert (status(KEY), status(other)) == (200, 401)
        path.write_text(f"{other}\n")
        client.portal.call(site.reload)
        assert (status(KEY), status(other)) == (401, 200)
        path.write_text("")
        (own_bundle / "config.json").unlink()
        client.portal.call(site.reload)
        assert (status(KEY), status(other)) == (401, 200)
    assert [line for line in notes.lines if line.startswith("The keys in use stay: ")]
    assert [line for line in notes.lines if "the bundle that is served stays: " in line]


def test_models_are_asked_by_name(
    served: Callable[..., Any], bundle: Path, other_bundle: Path
) -> None:
    rows = texts(4)
    with served(other_bundle) as (client, _):
        assert (
            np.abs(logits_of(client, rows) - mk.load(str(other_bundle)).logits(rows)).max() <= 1e-5
        )
        missing = client.post("/v2/models/absent/infer", json=question(rows))
        assert missing.status_code == 404
        assert client.get("/absent").status_code == 404
        assert client.get("/predict").status_code == 405
        assert client.put("/").headers["allow"] == "GET, HEAD, POST"


def test_what_comes_with_a_request_goes_back(served: Callable[..., Any]) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with served() as (client, _):
        answer = client.post("/predict", json={"inputs": "mail"}, headers={"traceparent": trace})
        assert answer.headers["traceparent"] == trace
        other = client.post("/predict", json={"inputs": "mail"}, headers={"traceparent": "x"})
        assert "traceparent" not in other.headers


def test_an_overloaded_server_says_how_long_to_wait(served: Callable[..., Any]) -> None:
    with served(max_requests=1) as (client, site):
        assert client.post("/predict", json={"inputs": "mail"}).status_code == 200
        site.admission.held = 1
        answer = client.post("/predict", json={"inputs": "mail"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert int(answer.headers["retry-after-ms"]) > 0
        site.admission.held = 0
        assert client.post("/predict", json={"inputs": "mail"}).status_code == 200
        assert 'status="429"' in client.get("/metrics").text


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    """Let every session break off on a batch that holds the word `police`."""
    tokenizer = mk.load(str(bundle)).loaded.tokenizer
    word = int(tokenizer.encode(["police"]).input_ids[1])
    compute = GraphClassifier.logits

    def breaks(self: GraphClassifier, batch: TokenBatch) -> Logits:
        if (batch.input_ids == word).any():
            raise RuntimeError("the graph broke off")
        return compute(self, batch)

    monkeypatch.setattr(GraphClassifier, "logits", breaks)


def test_a_poison_text_fails_alone(
    served: Callable[..., Any], bundle: Path, poison: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [text.replace("police", "mail") for text in texts(30)]
    asked = [*rows, "alpha police"]
    with served(timeout_s=30.0, shutdown_s=60.0, max_wait_s=20.0) as (client, site):
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda text: client.post("/predict", json={"inputs": text}), asked)
            )
        assert [one.status_code for one in answers] == [200] * 30 + [424]
        assert "graph" not in answers[-1].text and "RuntimeError" not in answers[-1].text
        found = site.engines[NAME].sessions
        assert (found.num_replaced, found.are_sound) == (0, True)
        # In one request, too: it is the request that fails, and no other.
        assert client.post("/", json={"inputs": asked}).status_code >= 400
        assert client.post("/", json={"inputs": rows}).status_code == 200


def test_failing_sessions_are_replaced_and_the_request_is_answered(
    served: Callable[..., Any], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, broken = GraphClassifier.logits, set()

    def fails(self: GraphClassifier, batch: TokenBatch) -> Logits:
        if id(self) in broken:
            raise RuntimeError("the session is out of order")
        return compute(self, batch)

    monkeypatch.setattr(GraphClassifier, "logits", fails)
    with served() as (client, site):
        expected = client.post("/predict", json={"inputs": "mail alpha"}).json()
        engine = site.engines[NAME]
        for count in (1, 2, 3):
            broken.add(id(engine.sessions._classifier))
            answer = client.post("/predict", json={"inputs": "mail alpha"})
            assert (answer.status_code, answer.json()) == (200, expected)
            assert engine.sessions.num_replaced == count
        assert "monoxkit_sessions_replaced_total" in client.get("/metrics").text
    assert sum("were replaced" in line for line in notes.lines) == 3


def test_sessions_that_cannot_be_made_again_take_the_server_out_of_service(
    served: Callable[..., Any], own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_RETRY_S", 0.0)
    compute, is_broken = GraphClassifier.logits, [False]

    def fails(self: GraphClassifier, batch: TokenBatch) -> Logits:
        if is_broken[0]:
            raise ModelError("the device is gone")
        return compute(self, batch)

    monkeypatch.setattr(GraphClassifier, "logits", fails)
    with served(own_bundle) as (client, _):
        is_broken[0] = True
        assert client.post("/predict", json={"inputs": "mail"}).status_code == 503
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        is_broken[0] = False
        assert client.post("/predict", json={"inputs": "mail"}).status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_a_slow_model_is_answered_for_by_the_deadline(
    served: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    compute, delay_s = GraphClassifier.logits, [0.0]

    def slow(self: GraphClassifier, batch: TokenBatch) -> Logits:
        time.sleep(delay_s[0])
        return compute(self, batch)

    monkeypatch.setattr(GraphClassifier, "logits", slow)
    with served(timeout_s=0.2) as (client, site):
        delay_s[0] = 0.6
        assert client.post("/predict", json={"inputs": "mail"}).status_code == 504
        delay_s[0] = 0.0
        assert site.admission.held == 0


def test_a_swapped_bundle_answers_and_a_damaged_one_does_not(
    served: Callable[..., Any], own_bundle: Path, other_bundle: Path, notes: Notes
) -> None:
    rows = texts(5)
    path = f"/v2/repository/models/{NAME}"
    before, after = (mk.load(str(one)).logits(rows) for one in (own_bundle, other_bundle))
    assert np.abs(before - after).max() > 0.01
    with served(own_bundle) as (client, site):
        assert client.put(path).json()["swapped"] is False
        shutil.rmtree(own_bundle)
        shutil.copytree(other_bundle, own_bundle)
        answer = client.put(path).json()
        assert answer["swapped"] is True
        assert answer["version"] == site.engines[NAME].facts.version
        assert np.abs(logits_of(client, rows) - after).max() <= 1e-5
        (own_bundle / "tokenizer.json").write_text("{}")
        refused = client.post(f"{path}/load")
        assert refused.status_code == 400
        assert str(own_bundle) not in refused.text
        assert any(str(own_bundle) in line for line in notes.lines)
        assert np.abs(logits_of(client, rows) - after).max() <= 1e-5
        assert client.put("/v2/repository/models/absent").status_code == 404


def test_a_fault_of_the_server_shows_nothing_of_it(
    served: Callable[..., Any], notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served() as (client, site):

        async def fault(*given: object) -> None:
            raise KeyError("a secret of the code")

        monkeypatch.setattr(site.engines[NAME], "answer", fault)
        answer = client.post("/predict", json={"inputs": "mail"})
        assert answer.status_code >= 400
        assert "secret" not in answer.text and "KeyError" not in answer.text
    assert any("a secret of the code" in line for line in notes.lines)


@pytest.mark.parametrize("damage", ["logits", "ids", "file", "none"])
def test_a_bundle_that_is_not_as_it_was_exported_is_not_served(
    served: Callable[..., Any], own_bundle: Path, other_bundle: Path, damage: str
) -> None:
    golden = own_bundle / "golden.json"
    record = json.loads((own_bundle / "monoxkit.json").read_text())
    content = json.loads(golden.read_text())
    if damage == "logits":
        content["recorded"]["logits"][0][0] += 1
    elif damage == "ids":
        content["input_ids"][0][1] += 1
    if damage == "file":
        shutil.copy(other_bundle / "model.onnx", own_bundle / "model.onnx")
    elif damage == "none":
        golden.unlink()
        del record["files"]["golden.json"]
    else:
        golden.write_text(json.dumps(content))
        record["files"] = {}
    (own_bundle / "monoxkit.json").write_text(json.dumps(record))
    with pytest.raises(ModelError) as caught, served(own_bundle):
        pass
    named = {"file": "model.onnx", "none": "no_self_test"}.get(damage, "golden texts")
    assert named in str(caught.value)
    if damage == "none":
        with served(own_bundle, self_test=False) as (client, _):
            assert client.post("/predict", json={"inputs": "mail"}).status_code == 200
