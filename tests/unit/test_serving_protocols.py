"""What each protocol reads in a body, and what it makes of an answer or a refusal."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from monox_kit.serving.contract import Kind, Refused, Reply, Request
from monox_kit.serving.protocols import PAGES, PROTOCOLS
from tests.serving_samples import (
    LOGITS,
    MULTI,
    NAMES,
    answer_of,
    decoded,
    model_facts,
    page,
    protocol,
    replied,
    server_facts,
)

ALL = ("tei", "hugging_face", "kserve", "classify")


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def told(reply: Reply) -> Any:
    return json.loads(reply.body)


def infer(*texts: str, **more: Any) -> bytes:
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}
    return encoded({"inputs": [tensor], **more})


def softmax(logits: Any) -> Any:
    exponents = np.exp(np.asarray(logits, np.float64))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def by_label(row: Any) -> dict[str, float]:
    return {one["label"]: one["score"] for one in row}


# text-embeddings-inference


@pytest.mark.parametrize(
    ("inputs", "rows", "is_batch"),
    [
        ("a", ("a",), False),
        (["a"], ("a",), False),
        (["a", "b"], (("a", "b"),), False),
        ([["a"]], ("a",), True),
        ([["a"], ["b", "c"]], ("a", ("b", "c")), True),
    ],
)
def test_tei_reads_texts_pairs_and_batches(inputs: Any, rows: Any, is_batch: bool) -> None:
    read = decoded("tei", encoded({"inputs": inputs, "unknown": 1}))
    assert read.question.rows == rows
    assert read.question.truncate is None
    one_kind = rows[:1]  # of a mixture the engine takes nothing
    answer = told(protocol("tei").encode(read.options, answer_of(one_kind)))
    assert isinstance(answer[0], list) is is_batch


def test_tei_gives_all_classes_the_largest_first() -> None:
    reply = replied("tei", encoded({"inputs": "a"}))
    answer = told(reply)
    assert [one["label"] for one in answer] == ["delivery", "billing", "Zürich, 東京"]
    np.testing.assert_allclose(
        [by_label(answer)[name] for name in NAMES], softmax(LOGITS[0]), atol=1e-6
    )
    assert reply.headers["x-compute-characters"] == "1"
    assert reply.headers["x-compute-tokens"] == "3"
    assert reply.headers["x-total-time"] == "25"
    assert reply.headers["x-inference-time"] == "20"


def test_tei_gives_logits_as_raw_scores() -> None:
    answer = told(replied("tei", encoded({"inputs": [["a"], ["b"]], "raw_scores": True})))
    for row, logits in zip(answer, LOGITS, strict=True):
        assert [by_label(row)[name] for name in NAMES] == list(logits)
        assert [one["score"] for one in row] == sorted(logits, reverse=True)


@pytest.mark.parametrize(
    ("given", "side"), [("left", "left"), ("Left", "left"), ("Right", "right"), (None, None)]
)
def test_tei_takes_the_side_of_truncation(given: str | None, side: str | None) -> None:
    body = {"inputs": "a", "truncate": False, "truncation_direction": given}
    question = decoded("tei", encoded(body)).question
    assert (question.truncate, question.truncation_side) == (False, side)


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        (Kind.INVALID, 422, "Validation"),
        (Kind.EMPTY, 400, "Empty"),
        (Kind.TOO_MANY_ROWS, 422, "Validation"),
        (Kind.TOO_MANY_TOKENS, 422, "Validation"),
        (Kind.BODY_TOO_LARGE, 413, "Validation"),
        (Kind.OVERLOADED, 429, "Overloaded"),
        (Kind.BACKEND, 424, "Backend"),
        (Kind.UNAVAILABLE, 503, "Unhealthy"),
        (Kind.DEADLINE, 504, "Overloaded"),
    ],
)
def test_tei_refuses_with_its_own_codes(kind: Kind, status: int, word: str) -> None:
    reply = protocol("tei").refuse(Refused(kind, "Why."))
    assert (reply.status, told(reply)) == (status, {"error": "Why.", "error_type": word})


@pytest.mark.parametrize(
    "inputs",
    [["a", "b", "c"], ["a", ["b"]], [["a"], "b"], [[]], [["a", "b", "c"]], 1, None, {"a": 1}],
)
def test_tei_refuses_other_inputs_as_a_validation(inputs: Any) -> None:
    reply = replied("tei", encoded({"inputs": inputs}))
    assert (reply.status, told(reply)["error_type"]) == (422, "Validation")


def test_tei_tells_a_body_that_is_no_json_from_one_of_another_form() -> None:
    assert replied("tei", b'{"inputs": ').status == 400
    assert replied("tei", b'{"inputs": 3}').status == 422


def test_tei_health_follows_readiness() -> None:
    health = page("GET", "/health")
    assert health.is_open
    assert health.read(server_facts(model_facts()), Request()).status == 200
    with pytest.raises(Refused) as found:
        health.read(server_facts(is_ready=False), Request())
    assert health.refuse(found.value).status == 503


# Hugging Face


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ({"text": "a", "text_pair": "b"}, (("a", "b"),)),
        ([{"text": "a", "text_pair": "b"}, ["c", "d"]], (("a", "b"), ("c", "d"))),
        ({"text": "a"}, ("a",)),
    ],
)
def test_hugging_face_takes_a_list_as_texts(inputs: Any, rows: Any) -> None:
    body = encoded({"inputs": inputs, "options": {"wait_for_model": True}})
    assert decoded("hugging_face", body).question.rows == rows
    assert len(told(replied("hugging_face", body))) == len(rows)


@pytest.mark.parametrize("top_k", [None, 1, 2, 9])
def test_hugging_face_gives_so_many_classes(top_k: int | None) -> None:
    body = encoded({"inputs": ["a", "b"], "parameters": {"top_k": top_k}})
    answer = told(replied("hugging_face", body))
    assert [len(row) for row in answer] == [min(top_k or 3, 3)] * 2
    assert [row[0]["label"] for row in answer] == ["delivery", "billing"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [("softmax", softmax), ("sigmoid", sigmoid), ("none", np.asarray)],
)
@pytest.mark.parametrize("problem_type", ["single_label_classification", MULTI])
def test_hugging_face_applies_the_function(function: str, expected: Any, problem_type: str) -> None:
    body = encoded({"inputs": "a", "parameters": {"function_to_apply": function}})
    (row,) = told(replied("hugging_face", body, problem_type=problem_type))
    found = [by_label(row)[name] for name in NAMES]
    np.testing.assert_allclose(found, expected(LOGITS[0]), atol=1e-6)


@pytest.mark.parametrize("function", [None, "softmax"])
def test_hugging_face_gives_the_model_s_own_function_calibrated(function: str | None) -> None:
    body = encoded({"inputs": "a", "parameters": {"function_to_apply": function}})
    (row,) = told(replied("hugging_face", body, temperature=2.0))
    found = [by_label(row)[name] for name in NAMES]
    np.testing.assert_allclose(found, softmax(np.array(LOGITS[0]) / 2), atol=1e-6)


def test_hugging_face_functions_do_not_overflow() -> None:
    for function in ("softmax", "sigmoid"):
        body = encoded({"inputs": "a", "parameters": {"function_to_apply": function}})
        logits = [[3e38, -3e38, 0.0]]
        for problem_type in ("single_label_classification", MULTI):
            (row,) = told(replied("hugging_face", body, problem_type=problem_type, logits=logits))
            assert by_label(row)["billing"] == 1.0


@pytest.mark.parametrize(
    "parameters",
    [{"top_k": 0}, {"top_k": "2"}, {"top_k": 1.5}, {"function_to_apply": "tanh"}, {"top": 2}, [1]],
)
def test_hugging_face_refuses_parameters_that_it_does_not_have(parameters: Any) -> None:
    reply = replied("hugging_face", encoded({"inputs": "a", "parameters": parameters}))
    assert reply.status == 400
    assert "parameters" in told(reply)["error"]


# KServe


def test_kserve_gives_every_output_where_none_is_named() -> None:
    answer = told(replied("kserve", infer("a", "b", id="17")))
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (
        "student",
        "0123456789ab",
        "17",
    )
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert list(outputs) == ["label", "probabilities", "logits", "tokens", "truncated", "abstained"]
    assert outputs["label"]["data"] == ["delivery", "billing"]
    assert (outputs["logits"]["datatype"], outputs["logits"]["shape"]) == ("FP32", [2, 3])
    assert outputs["logits"]["data"] == [*LOGITS[0], *LOGITS[1]]
    np.testing.assert_allclose(
        np.reshape(outputs["probabilities"]["data"], (2, 3)), softmax(LOGITS), atol=1e-6
    )
    assert outputs["tokens"]["data"] == [3, 4]
    assert outputs["abstained"]["data"] == [False, False]


def test_kserve_takes_pairs_columns_and_its_own_parameters() -> None:
    tensors = [
        {"name": "text_pair", "shape": [2, 1], "datatype": "BYTES", "data": [["c"], ["d"]]},
        {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
    ]
    parameters = {"truncate": False, "language": "de", "priority": 3}
    body = encoded({"inputs": tensors, "parameters": parameters})
    read = decoded("kserve", body, path={"model": "m"})
    assert read.model == "m"
    assert read.question.rows == (("a", "c"), ("b", "d"))
    assert (read.question.truncate, read.question.language) == (False, "de")


def test_kserve_gives_the_classification_of_a_value() -> None:
    outputs = [
        {"name": "logits", "parameters": {"classification": 2}},
        {"name": "probabilities", "parameters": {"classification": 9}},
    ]
    answer = told(replied("kserve", infer("a", "b", outputs=outputs)))
    logits, probabilities = answer["outputs"]
    assert (logits["datatype"], logits["shape"]) == ("BYTES", [2, 2])
    assert logits["data"] == [
        "2.000000:1:delivery",
        "0.500000:0:billing",
        "3.000000:0:billing",
        "1.000000:2:Zürich, 東京",
    ]
    assert probabilities["shape"] == [2, 3]


def test_kserve_names_all_labels_of_a_multi_label_model() -> None:
    outputs = [{"name": "label"}]
    texts = infer("a", "b", "c", outputs=outputs)
    logits = [[1.0, 2.0, -1.0], [-1.0, -1.0, 3.0], [-1.0, -1.0, -1.0]]
    answer = told(replied("kserve", texts, problem_type=MULTI, logits=logits))
    assert [json.loads(each) for each in answer["outputs"][0]["data"]] == [
        ["billing", "delivery"],
        ["Zürich, 東京"],
        [],
    ]


def binary(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def binary_infer(content: bytes, shape: list[int], size: int | None = None) -> tuple[bytes, str]:
    tensor = {
        "name": "text",
        "shape": shape,
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(content) if size is None else size},
    }
    head = encoded({"inputs": [tensor]})
    return head + content, str(len(head))


@pytest.mark.parametrize(
    ("content", "shape", "size", "length"),
    [
        (binary(b"a", b"b"), [3], None, None),
        (binary(b"a", b"b"), [1, 2], None, None),
        (binary(b"a", b"bcd")[:-1], [2], None, None),
        (binary(b"a") + b"\x01\x00", [1], None, None),
        (b"\xff\xff\xff\xffabc", [1], None, None),
        (binary(b"\xff"), [1], None, None),
        (binary(b"a"), [1], 99, None),
        (binary(b"a"), [1], 2, None),
        (binary(b"a") + b"rest", [1], 5, None),
        (binary(b"a"), [1], None, "-1"),
        (binary(b"a"), [1], None, "1e3"),
        (binary(b"a"), [1], None, "99999"),
        (binary(b"a"), [1], None, "9" * 5000),
        (binary(b"a"), [1], None, "\u0663"),
        (binary(b"a"), [1], None, ""),
    ],
)
def test_kserve_refuses_binary_tensors_that_do_not_add_up(
    content: bytes, shape: list[int], size: int | None, length: str | None
) -> None:
    body, told_length = binary_infer(content, shape, size)
    headers = {"inference-header-content-length": told_length if length is None else length}
    reply = replied("kserve", body, headers)
    assert reply.status == 400
    assert set(told(reply)) == {"error"}


def test_kserve_refuses_a_version_that_is_not_served() -> None:
    path = {"model": "student", "version": "1"}
    reply = replied("kserve", infer("a"), path=path)
    assert reply.status == 404
    served = {"model": "student", "version": model_facts().version}
    assert replied("kserve", infer("a"), path=served).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": [{"name": "texts", "shape": [1], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "FP32", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [1, 1, 1], "datatype": "BYTES", "data": ["a"]}]},
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES"}]},
        {"inputs": [{"name": "text", "shape": [10**30], "datatype": "BYTES", "data": ["a"]}]},
    ],
)
def test_kserve_refuses_other_tensors(body: Any) -> None:
    assert replied("kserve", encoded(body)).status == 400


@pytest.mark.parametrize(
    "outputs",
    [
        [{"name": "scores"}],
        [{"name": "label", "parameters": {"classification": 2}}],
        [{"name": "logits", "parameters": {"classification": 0}}],
        # An answer that is some hundred times as long as its request.
        [{"name": "logits"}, {"name": "label"}, {"name": "logits"}],
    ],
)
def test_kserve_refuses_outputs_that_there_are_not(outputs: Any) -> None:
    assert replied("kserve", infer("a", outputs=outputs)).status == 400


def test_kserve_tells_what_is_served() -> None:
    server = server_facts(model_facts(has_pairs=False), model_facts(name="other"))

    def read(path: str, **parameters: str) -> Any:
        return told(page("GET", path).read(server, Request(path=parameters)))

    assert read("/v2")["extensions"] == ["classification", "binary_tensor_data"]
    assert read("/v2/health/live") == {"live": True}
    assert read("/v2/health/ready") == {"ready": True}
    model = read("/v2/models/{model}", model="student")
    assert [one["name"] for one in model["inputs"]] == ["text"]
    assert model["outputs"][1] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}
    assert [one["name"] for one in read("/v2/models/{model}", model="other")["inputs"]] == [
        "text",
        "text_pair",
    ]
    version = model["versions"][0]
    path = "/v2/models/{model}/versions/{version}/ready"
    assert read(path, model="student", version=version) == {"name": "student", "ready": True}
    for parameters in ({"model": "third", "version": version}, {"model": "other", "version": "9"}):
        with pytest.raises(Refused) as found:
            read(path, **parameters)
        assert found.value.kind is Kind.NOT_FOUND


def test_kserve_is_not_ready_while_the_server_is_not() -> None:
    server = server_facts(model_facts(), is_ready=False)
    ready = page("GET", "/v2/health/ready").read(server, Request())
    assert (ready.status, told(ready)) == (503, {"ready": False})
    request = Request(path={"model": "student"})
    assert page("GET", "/v2/models/{model}/ready").read(server, request).status == 503


# vLLM and SGLang


def test_classify_answers_in_the_models_order() -> None:
    body = encoded({"input": ["a", "b"], "model": "student", "user": "me"})
    assert decoded("classify", body).model == "student"
    answer = told(replied("classify", body))
    assert (answer["object"], answer["model"]) == ("list", "student")
    assert [one["index"] for one in answer["data"]] == [0, 1]
    assert [one["label"] for one in answer["data"]] == ["delivery", "billing"]
    assert [one["num_classes"] for one in answer["data"]] == [3, 3]
    np.testing.assert_allclose([one["probs"] for one in answer["data"]], softmax(LOGITS), atol=1e-6)
    assert answer["usage"]["total_tokens"] == 7


def test_classify_counts_the_tokens_that_were_read() -> None:
    read = decoded("classify", encoded({"input": "a"}))
    answer = answer_of(("a",), tokens=np.array([999]), truncated=np.array([True]))
    assert told(protocol("classify").encode(read.options, answer))["usage"]["prompt_tokens"] == 16


def test_classify_gives_logits_without_the_activation() -> None:
    answer = told(replied("classify", encoded({"input": "a", "use_activation": False})))
    assert answer["data"][0]["probs"] == list(LOGITS[0])


@pytest.mark.parametrize(
    ("given", "truncate"), [({}, None), ({"truncate_prompt_tokens": -1}, True)]
)
def test_classify_cuts_where_it_is_asked_to(given: Any, truncate: bool | None) -> None:
    read = decoded("classify", encoded({"input": "a", "truncation_side": "left", **given}))
    assert (read.question.truncate, read.question.truncation_side) == (truncate, "left")


@pytest.mark.parametrize(
    "changed",
    [
        {"input": [1, 2]},
        {"input": ["a", 3]},
        {"input": [["a"]]},
        {"input": None},
        {"truncate_prompt_tokens": 7},
        {"add_special_tokens": False},
    ],
)
def test_classify_refuses_what_it_would_have_to_ignore(changed: Any) -> None:
    reply = replied("classify", encoded({"input": "a", **changed}))
    assert reply.status == 400
    assert told(reply)["error"]["type"] == "BadRequestError"
    assert told(reply)["error"]["code"] == 400


def test_classify_lists_the_models_as_openai_does() -> None:
    models = page("GET", "/v1/models").read(server_facts(model_facts()), Request())
    assert [one["id"] for one in told(models)["data"]] == ["student"]


# all of them


def scores_of(name: str, reply: Reply) -> list[float]:
    """The scores of the first row in the order of `NAMES`."""
    answer = told(reply)
    if name == "kserve":
        (values,) = [one["data"][:3] for one in answer["outputs"] if one["name"] == "probabilities"]
        return list(values)
    if name == "classify":
        return list(answer["data"][0]["probs"])
    row = answer[0] if isinstance(answer[0], list) else answer
    return [by_label(row)[each] for each in NAMES]


def body_of(name: str, text: str = "a") -> bytes:
    return {
        "tei": encoded({"inputs": text}),
        "hugging_face": encoded({"inputs": text}),
        "kserve": infer(text),
        "classify": encoded({"input": text}),
    }[name]


@pytest.mark.parametrize("name", ALL)
def test_a_multi_label_model_has_a_sigmoid_for_each_class(name: str) -> None:
    scores = scores_of(name, replied(name, body_of(name), problem_type=MULTI))
    np.testing.assert_allclose(scores, sigmoid(LOGITS[0]), atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_probabilities_are_the_calibrated_ones(name: str) -> None:
    scores = scores_of(name, replied(name, body_of(name), temperature=2.0))
    np.testing.assert_allclose(scores, softmax(np.array(LOGITS[0]) / 2), atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused(name: str, value: float) -> None:
    read = decoded(name, body_of(name))
    answer = answer_of(("a",), probabilities=np.array([[value, 0.5, 0.5]], np.float32))
    with pytest.raises(Refused) as found:
        protocol(name).encode(read.options, answer)
    assert found.value.kind is Kind.BACKEND


@pytest.mark.parametrize("name", ALL)
def test_a_body_that_is_nested_deeply_is_no_json(name: str) -> None:
    reply = replied(name, b'{"x":' * 100_000)
    assert reply.status == 400
    assert b"nested" in reply.body


@pytest.mark.parametrize("name", ALL)
def test_a_compressed_body_is_refused_by_name(name: str) -> None:
    reply = replied(name, body_of(name), {"content-encoding": "gzip"})
    assert reply.status in (400, 422)
    assert b"compressed" in reply.body


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", list(Kind))
def test_every_refusal_is_json_with_its_message(name: str, kind: Kind) -> None:
    reply = protocol(name).refuse(Refused(kind, "Why, in words.", retry_after_s=3))
    assert 400 <= reply.status < 600
    assert reply.headers["content-type"] == "application/json"
    assert "Why, in words." in json.dumps(told(reply))


def test_routes_are_of_one_protocol_each() -> None:
    routes = [route for one in (*PROTOCOLS, *PAGES) for route in one.routes]
    assert len(routes) == len(set(routes))
    assert {("POST", "/predict"), ("POST", "/"), ("POST", "/classify"), ("GET", "/")} <= {*routes}


def test_a_model_can_be_named_in_the_path() -> None:
    for name in ("tei", "hugging_face"):
        assert decoded(name, body_of(name), path={"model": "other"}).model == "other"
        assert protocol(name).decode(Request(body=body_of(name))).model is None
