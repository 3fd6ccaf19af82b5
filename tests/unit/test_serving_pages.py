"""What can be read without a question: the interface's document, the pages, what is served."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from monox_kit.serving.contract import Kind, Refused, Reply, Request
from monox_kit.serving.protocols import PAGES, PROTOCOLS
from monox_kit.serving.protocols.openapi import OPERATIONS, document
from monox_kit.serving.protocols.pages import docs, policy
from tests.serving_samples import model_facts, page, protocol, replied, server_facts

# What the app itself routes: probes, figures and bundles that are read again.
OWN_ROUTES = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
    ("PUT", "/v2/repository/models/{model}"),
    ("POST", "/v2/repository/models/{model}/load"),
}


def read(path: str, *models: Any) -> Reply:
    return page("GET", path).read(server_facts(*(models or (model_facts(),))), Request())


def schema(name_of: Any) -> Any:
    """A validator of a schema in the document, with its references."""
    components = document("1")["components"]
    return jsonschema.Draft202012Validator({**name_of, "components": components})


def operation(method: str, path: str) -> Any:
    return document("1")["paths"][path][method.lower()]


def json_of(content: Any) -> Any:
    return content["content"]["application/json"]["schema"]


def test_the_document_has_every_route() -> None:
    described = {(one.method, one.path) for one in OPERATIONS}
    served = {route for one in (*PROTOCOLS, *PAGES) for route in one.routes}
    aliases = {
        ("GET", "/ping"),
        ("POST", "/models/{model}"),
        ("POST", "/models/{model}/predict"),
    }
    assert described == (served - aliases) | OWN_ROUTES
    assert len(described) == len(OPERATIONS)


def test_the_document_is_sound() -> None:
    whole = json.loads(read("/openapi.json").body)
    assert whole["info"]["version"] == "0.2.0"
    for name, one in whole["components"]["schemas"].items():
        assert "." not in name  # a module's name would show the code
        jsonschema.Draft202012Validator.check_schema(one)
    names = [each["operationId"] for path in whole["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(whole)):
        assert reference in whole["components"]["schemas"]


@pytest.mark.parametrize("name", [one.name for one in PROTOCOLS])
def test_examples_are_answered_as_the_document_says(name: str) -> None:
    method, path = protocol(name).routes[0]
    described = operation(method, path)
    (example,) = (one.example for one in OPERATIONS if (one.method, one.path) == (method, path))
    schema(json_of(described["requestBody"])).validate(example)
    reply = replied(name, json.dumps(example).encode())
    assert reply.status == 200
    schema(json_of(described["responses"]["200"])).validate(json.loads(reply.body))


@pytest.mark.parametrize("name", [one.name for one in PROTOCOLS])
def test_every_refusal_is_in_the_document(name: str) -> None:
    described = operation(*protocol(name).routes[0])["responses"]
    of_the_app = {Kind.UNAUTHORIZED, Kind.TOO_SLOW}
    # text-embeddings-inference and Hugging Face's client name no model in the body.
    unnamed = {Kind.NOT_FOUND} if name in ("tei", "hugging_face") else set()
    for kind in set(Kind) - of_the_app - unnamed:
        reply = protocol(name).refuse(Refused(kind, "Why."))
        schema(json_of(described[str(reply.status)])).validate(json.loads(reply.body))


def test_what_the_schema_refuses_is_refused() -> None:
    validator = schema(json_of(operation("POST", "/predict")["requestBody"]))
    for body in (
        {},
        [],
        {"inputs": 1},
        {"inputs": "a", "truncate": "yes"},
        {"inputs": " "},
        {"inputs": []},
        {"inputs": ["a", ["b"]]},
        {"inputs": [["a", "b", "c"]]},
        {"inputs": [[]]},
    ):
        assert not validator.is_valid(body)
        assert replied("tei", json.dumps(body).encode()).status in (400, 422)
    for inputs in ("a", ["a"], ["a", "b"], [["a"], ["b"]], [["a", "b"]]):
        validator.validate({"inputs": inputs})
        assert replied("tei", json.dumps({"inputs": inputs}).encode()).status == 200


def test_info_has_the_fields_of_both() -> None:
    info = json.loads(read("/info", model_facts(), model_facts(name="other")).body)
    assert info["model_type"]["classifier"]["label2id"]["delivery"] == 1
    assert info["model_type"]["classifier"]["id2label"]["1"] == "delivery"
    assert (info["max_input_length"], info["max_client_batch_size"]) == (16, 8)
    assert [one["name"] for one in info["models"]] == ["student", "other"]
    assert info["models"][0]["problem_type"] == "single_label_classification"
    schema(json_of(operation("GET", "/info")["responses"]["200"])).validate(info)
    with pytest.raises(Refused) as found:
        page("GET", "/info").read(server_facts(), Request())
    assert found.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_is_whole_and_loads_nothing_from_elsewhere(path: str) -> None:
    reply = read(path)
    html = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/html")
    assert not re.search(r"(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//", html)
    assert not re.search(r"url\(|@import|//[a-z]+\.[a-z]", html)
    rules = dict(
        rule.partition(" ")[::2] for rule in reply.headers["content-security-policy"].split("; ")
    )
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in reply.headers["content-security-policy"]
    # What the policy would not run: attributes that hold code or styles.
    assert not re.search(r"<[^>]+\s(?:on\w+|style)\s*=", html)


def test_the_policy_names_what_is_in_the_page_alone() -> None:
    # printf '%s' 'let a;' | openssl dgst -sha256 -binary | base64
    digest = "sha256-81WALLbUROF1pWdYjuQYKuIcGgY/+TqVJr8UsV6Tkvo="
    assert policy("<script>let a;</script>").count("sha256-") == 1
    assert digest in policy("<p><script>let a;</script>")
    assert digest not in policy("<script>let b;</script>")
    assert "script-src 'none'" in policy("<p>")


def test_docs_show_every_route_and_escape_what_they_show() -> None:
    html = read("/docs").body.decode()
    for one in OPERATIONS:
        assert f"<code>{one.method} {one.path}</code>" in html
    described = document("<b>")
    assert "<b>" not in docs(described)


def test_pages_are_open_where_probes_and_people_begin() -> None:
    opened = {route for one in PAGES if one.is_open for route in one.routes}
    assert opened == {
        ("GET", "/"),
        ("GET", "/health"),
        ("GET", "/ping"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
    }
