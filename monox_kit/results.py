"""What the product's calls return: dataclasses that are shown as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


class Result:
    """The base of a result whose fields, in dataclasses too, are plain values."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]
