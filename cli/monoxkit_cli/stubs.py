"""The types of the stages' calls, `monox_kit/calls.pyi`: `python -m monoxkit_cli.stubs`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from monox_kit import calls
from monox_kit.config import Setting
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.door import STAGES
from monox_kit.progress import Progress
from monox_kit.stage_call import Stage

_HEAD = '''"""The stages as keyword calls; written by `make docs` from the configurations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

{imports}

Files: TypeAlias = str | Path | Sequence[str | Path] | CorpusConfig

'''


def page() -> str:
    """The whole stub."""
    stages = {name: STAGES[name] for name in STAGES if hasattr(calls, name)}
    results = {name: _result(stage) for name, stage in stages.items()}
    kinds = (CorpusConfig, Progress, *results.values())
    imports = sorted({f"from {kind.__module__} import {kind.__name__}" for kind in kinds})
    parts = [_HEAD.format(imports="\n".join(imports))]
    parts += [
        "\n".join(_call(stage, results[name].__name__)) + "\n" for name, stage in stages.items()
    ]
    return "".join(parts)


def _result(stage: Stage) -> type[Any]:
    """The type that the stage's function returns."""
    module, _, name = stage.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    kind: type[Any] = get_type_hints(function)["return"]
    return kind


def _call(stage: Stage, result: str) -> Iterator[str]:
    yield f"def {stage.name}("
    parameters = stage.parameters()
    for one in parameters:
        if one.name in stage.positional:
            yield f"    {_declared(one)},"
    yield "    *,"
    for one in parameters:
        if one.name not in stage.positional:
            yield f"    {_declared(one)},"
    yield "    progress: Progress | None = ...,"
    yield f") -> {result}: ..."


def _declared(one: Setting) -> str:
    default = "" if one.is_required else " = ..."
    kind = "Files" if one.is_files else _shown(one.type)
    if one.is_files and not one.is_required:
        kind += " | None"
    return f"{one.name}: {kind}{default}"


def _shown(kind: Any) -> str:
    """A type as it is written; several values may be one."""
    if kind is type(None):
        return "None"
    if get_origin(kind) in (Union, UnionType):
        parts = " | ".join(_shown(part) for part in get_args(kind))
        return " | ".join(dict.fromkeys(parts.split(" | ")))
    if get_origin(kind) is Literal:
        return f"Literal[{', '.join(map(repr, get_args(kind)))}]"
    if get_origin(kind) is tuple:
        first, *rest = get_args(kind)
        if rest == [...]:
            return f"Sequence[{_shown(first)}] | {_shown(first)}"
        return f"tuple[{', '.join(map(_shown, get_args(kind)))}]"
    return "str | Path" if kind is Path else str(kind.__name__)


if __name__ == "__main__":
    sys.stdout.write(page())
