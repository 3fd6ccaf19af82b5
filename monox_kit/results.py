"""What the product's calls return: dataclasses that are shown as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any


class Result:
    """The base of a result whose fields, in dataclasses too, are plain values, or paths."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        return {name: str(one) if isinstance(one, Path) else one for name, one in values.items()}
