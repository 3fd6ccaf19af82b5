"""The ways in which clients ask, each as pure functions between bytes and the contract's types."""

from __future__ import annotations

from monox_kit.serving.contract import Page, Protocol
from monox_kit.serving.protocols import (
    classify,
    hugging_face,
    info,
    kserve,
    kserve_pages,
    openapi,
    pages,
    tei,
)

PROTOCOLS: tuple[Protocol, ...] = (
    tei.PROTOCOL,
    hugging_face.PROTOCOL,
    kserve.PROTOCOL,
    classify.PROTOCOL,
)
PAGES: tuple[Page, ...] = (
    *tei.PAGES,
    *kserve_pages.PAGES,
    *classify.PAGES,
    *info.PAGES,
    *openapi.PAGES,
    *pages.PAGES,
)
