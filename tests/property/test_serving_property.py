"""Bodies of every kind: none is a 500 or shows internals; refusals are in their form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving_samples import decoded, replied

PROTOCOLS = ("tei", "hugging_face", "kserve", "classify")
# Statuses that a body alone can lead to.
OF_BODIES = {
    "tei": {200, 400, 422},
    "hugging_face": {200, 400, 422},
    "kserve": {200, 400, 422},
    "classify": {200, 400, 422},
}
FIELDS = (
    "inputs", "input", "parameters", "outputs", "id", "model", "truncate", "truncation_direction",
    "raw_scores", "top_k", "function_to_apply", "name", "shape", "datatype", "data", "text",
    "text_pair", "binary_data_size", "binary_data", "classification", "truncate_prompt_tokens",
)  # fmt: skip

texts = st.text(max_size=8) | st.sampled_from(
    ["text", "text_pair", "BYTES", "FP32", "label", "logits", "left", "none", " ", "\u202e\x00"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | texts, inner, max_size=5)
    ),
    max_leaves=12,
)
# Bodies that are nearly right: the fields are the protocols' own, and what is in them may be, too.
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["text", "text_pair"]) | scalars,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | scalars,
        "datatype": st.just("BYTES") | scalars,
        "data": st.lists(texts | st.lists(texts, max_size=2), max_size=3) | scalars,
    },
    optional={"parameters": values},
)
nearly = st.fixed_dictionaries(
    {},
    optional={
        "inputs": texts
        | st.lists(texts | st.lists(texts, max_size=3), max_size=3)
        | st.lists(tensors, max_size=3)
        | values,
        "input": texts | st.lists(texts | st.integers(), max_size=3) | values,
        "parameters": st.dictionaries(st.sampled_from(FIELDS), values, max_size=3) | values,
        "outputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["label", "probabilities", "logits"]) | texts},
                optional={"parameters": values},
            ),
            max_size=3,
        )
        | values,
        "truncate": scalars,
        "raw_scores": scalars,
        "truncate_prompt_tokens": scalars,
    },
)
by_protocol = pytest.mark.parametrize("name", PROTOCOLS)


def require_honest(name: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    """No exception but a refusal, in the form of the protocol, without a word of the code."""
    reply = replied(name, body, headers)
    assert reply.status in OF_BODIES[name]
    if reply.status == 200:
        return
    told = json.loads(reply.body)
    message = told["error"]["message"] if name == "classify" else told["error"]
    assert isinstance(message, str)
    assert message
    for internal in ("Traceback", "monox_kit", "msgspec", ".py", "object at 0x"):
        assert internal not in message


@by_protocol
@given(body=st.binary(max_size=64))
@settings(max_examples=150, deadline=None)
def test_any_bytes(name: str, body: bytes) -> None:
    require_honest(name, body)


@by_protocol
@given(value=values | nearly)
@settings(max_examples=300, deadline=None)
def test_any_json(name: str, value: Any) -> None:
    require_honest(name, json.dumps(value).encode())


@by_protocol
@given(value=nearly, cut=st.integers(0, 60), byte=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_json_with_a_byte_changed(name: str, value: Any, cut: int, byte: int) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    place = cut % max(1, len(body))
    require_honest(name, body[:place] + bytes([byte]) + body[place + 1 :])


@given(
    length=st.integers(-5, 200).map(str) | st.text(max_size=6),
    body=st.binary(max_size=40),
    rest=st.binary(max_size=40),
    size=st.integers(-2, 50),
)
@settings(max_examples=300, deadline=None)
def test_any_binary_tensor(length: str, body: bytes, rest: bytes, size: int) -> None:
    require_honest("kserve", body + rest, {"inference-header-content-length": length})
    tensor = {
        "name": "text",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    require_honest("kserve", head + rest, {"inference-header-content-length": str(len(head))})


@given(contents=st.lists(st.text(min_size=1), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_every_protocol_reads_the_same_texts(contents: list[str]) -> None:
    contents = [text.encode("utf-8", "replace").decode() for text in contents]
    binary = b"".join(len(each.encode()).to_bytes(4, "little") + each.encode() for each in contents)
    tensor: dict[str, Any] = {"name": "text", "shape": [len(contents)], "datatype": "BYTES"}
    head = json.dumps(
        {"inputs": [{**tensor, "parameters": {"binary_data_size": len(binary)}}]}
    ).encode()
    found = [
        decoded("tei", json.dumps({"inputs": [[text] for text in contents]}).encode()),
        decoded("hugging_face", json.dumps({"inputs": contents}).encode()),
        decoded("kserve", json.dumps({"inputs": [{**tensor, "data": contents}]}).encode()),
        decoded("classify", json.dumps({"input": contents}).encode()),
        decoded("kserve", head + binary, {"inference-header-content-length": str(len(head))}),
    ]
    assert {one.question.rows for one in found} == {tuple(contents)}
