"""Pages for people: GET / to try a model, GET /docs to read what the server takes.

Both are whole in one answer: nothing is fetched from another host, and the policy that is sent
along allows nothing else. Styles and scripts are allowed by their digests alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from monox_kit.serving.contract import Page, Reply, Request, ServerFacts
from monox_kit.serving.protocols import hugging_face
from monox_kit.serving.protocols.openapi import OPERATIONS, document
from monox_kit.serving.protocols.operations import Operation

_PAGE = "page.html"
_SAFE = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}


def policy(html: str) -> str:
    """The Content-Security-Policy under which a page works, and no other code or host.

    Source: Content Security Policy Level 3, hashes of inline elements.
    """
    allowed = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
            for content in re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        )
        or "'none'"
        for tag in ("style", "script")
    }
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {allowed['style']}",
            f"script-src {allowed['script']}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _html(html: str) -> Reply:
    return Reply(body=html.encode(), headers={**_SAFE, "content-security-policy": policy(html)})


@cache
def _start() -> Reply:
    html = files("monox_kit.serving").joinpath(_PAGE).read_text(encoding="utf-8")
    return _html(html)


@cache
def _docs(version: str) -> Reply:
    return _html(docs(document(version)))


def docs(described: dict[str, Any]) -> str:
    """The OpenAPI document as a page.

    Args:
        described: as `openapi.document` gives it.
    """
    sections: dict[str, list[str]] = {}
    for one in OPERATIONS:
        sections.setdefault(one.tag, []).append(_section(one, described))
    content = "".join(f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in sections.items())
    version = escape(str(described["info"]["version"]))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>monoxkit serve: the interface</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>monoxkit serve {version}</h1>"
        "<p>Texts in, labels with probabilities out, in the forms of several servers. "
        'The same for programs: <a href="/openapi.json">openapi.json</a>. '
        '<a href="/">Try the model</a>.</p>'
        f"{content}</main></body></html>"
    )


def _section(one: Operation, described: dict[str, Any]) -> str:
    operation = described["paths"][one.path][one.method.lower()]
    parts = [
        f"<section><h3><code>{one.method} {escape(one.path)}</code></h3>",
        f"<p>{escape(one.summary)}</p>",
    ]
    if one.request is not None:
        content = operation["requestBody"]["content"]["application/json"]
        parts.append(_fields(content["schema"], described))
    if one.example is not None:
        body = json.dumps(one.example, ensure_ascii=False, indent=1)
        parts.append(f"<p>For example:</p><pre>{escape(body)}</pre>")
    rows = "".join(
        f"<tr><td>{status}</td><td>{escape(answer['description'])}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    )
    parts.append(f"<table><tr><th>status</th><th>meaning</th></tr>{rows}</table></section>")
    return "".join(parts)


def _fields(schema: dict[str, Any], described: dict[str, Any]) -> str:
    """The fields of a body as a table."""
    found = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_shape(each))}</td>"
        f"<td>{'yes' if name in found.get('required', ()) else 'no'}</td>"
        f"<td>{escape(each.get('description', ''))}</td></tr>"
        for name, each in found["properties"].items()
    )
    return (
        f"<table><tr><th>field</th><th>type</th><th>needed</th><th>meaning</th></tr>{rows}</table>"
    )


def _shape(schema: dict[str, Any]) -> str:
    """A field's type in a few words."""
    if "anyOf" in schema:
        return " or ".join(_shape(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join("null" if each is None else str(each) for each in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"list of ({_shape(schema['items'])})"
    return str(schema.get("type", "any"))


_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { text-align: left; vertical-align: top; padding: .15rem .8rem .15rem 0; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid #8886; border-radius: .4rem; }
h3 code { overflow-wrap: anywhere; }
"""


def _read_start(server: ServerFacts, request: Request) -> Reply:
    return _start()


def _read_docs(server: ServerFacts, request: Request) -> Reply:
    return _docs(server.version)


PAGES = (
    # The page holds nothing of the model, and asks for the key where there are keys.
    Page(
        routes=(("GET", "/"),),
        read=_read_start,
        refuse=hugging_face.PROTOCOL.refuse,
        is_open=True,
    ),
    Page(routes=(("GET", "/docs"),), read=_read_docs, refuse=hugging_face.PROTOCOL.refuse),
)
