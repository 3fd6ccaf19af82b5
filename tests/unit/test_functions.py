"""No function of the product is too long, or takes too much, to be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for place in ("monox_kit", "cli") for path in (ROOT / place).rglob("*.py"))
MAX_LINES = 60
MAX_PARAMETERS = 12


def functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Of each function its name and line, its lines, and its parameters but for self and cls."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names += [one.arg for one in (given.vararg, given.kwarg) if one is not None]
            own = names[1:] if names[:1] in (["self"], ["cls"]) else names
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield f"{node.name}, line {node.lineno}", lines, len(own)


@pytest.mark.parametrize(
    ("source", "lines", "parameters"),
    [
        ("def f(a, /, b, *c, d, **e):\n    return a", 2, 5),
        ("class A:\n    async def f(self, a):\n        await a\n        return a", 3, 1),
        ("def f():\n    def g(a):\n        return a\n    return g", 4, 0),
    ],
)
def test_lines_and_parameters_are_counted(source: str, lines: int, parameters: int) -> None:
    assert next(functions(source))[1:] == (lines, parameters)


def test_every_function_is_short_and_takes_few_parameters() -> None:
    assert len(SOURCES) > 200
    over = [
        f"{path.relative_to(ROOT)}: {name}: {lines} lines, {parameters} parameters"
        for path in SOURCES
        for name, lines, parameters in functions(path.read_text(encoding="utf-8"))
        if lines > MAX_LINES or parameters > MAX_PARAMETERS
    ]
    assert over == [], f"at most {MAX_LINES} lines and {MAX_PARAMETERS} parameters"
