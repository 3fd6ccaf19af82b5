"""Configurations: checked when made, described by their docstrings, and read by the door."""

from __future__ import annotations

import inspect
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Lt

from monox_kit.config import Config, Needs, OnlyWith, settings_of
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.door import STAGES
from monox_kit.errors import ConfigError, MissingExtra
from monox_kit.extras import EXTRA_OF, missing_extra
from monox_kit.stage_call import Stage

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner(Config):
    """Inner settings.

    Attributes:
        rate: peak rate. It has a second sentence,
            and a second line.
    """

    rate: Annotated[float, Ge(0), Lt(1)] = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer(Config):
    """Outer settings.

    Attributes:
        engine: where it runs.
        workers: workers at once;
            none by default.
        guard: fraction to keep.
        guard_rows: rows to learn from.
        corpus: the texts.
        more: other texts.
        bounds: first and last.
        inner: the rest.
    """

    RULES = (OnlyWith(("workers",), "engine", ("ray",)), Needs(("guard_rows",), "guard", 0.999))

    engine: Literal["local", "ray"] = "local"
    workers: Annotated[int, Ge(1)] | None = None
    guard: float | None = None
    guard_rows: int = 200
    corpus: CorpusConfig
    more: CorpusConfig | None = None
    bounds: tuple[int, int] | None = None
    inner: Inner = field(default_factory=Inner)


CORPUS = CorpusConfig(paths=("a.jsonl",))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"workers": 0, "engine": "ray"}, ("`workers`", "0")),
        ({"engine": "cloud"}, ("`engine`", "cloud")),
        ({"workers": "2", "engine": "ray"}, ("`workers`", "'2'", "2")),
        ({"workers": 2}, ("`workers` 2", "`engine` ray", "local")),
        ({"guard_rows": 300}, ("`guard_rows` 300", "`guard`", "0.999")),
        ({"corpus": "a.jsonl"}, ("`corpus`",)),
    ],
)
def test_what_does_not_fit_is_named_when_it_is_made(
    settings: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as found:
        Outer(**{"corpus": CORPUS, **settings})
    assert all(part in str(found.value) for part in parts)


def test_nested_configurations_are_checked_and_rules_that_hold_are_silent() -> None:
    with pytest.raises(ConfigError) as found:
        Inner(rate=1.5)
    assert "`rate`" in str(found.value) and "1.5" in str(found.value)
    assert Outer(corpus=CORPUS, engine="ray", workers=2, guard=0.9, guard_rows=300).workers == 2


def test_a_setting_is_its_field_and_the_first_sentence_about_it() -> None:
    found = {one.name: one for one in settings_of(Outer)}
    assert list(found) == [
        *("engine", "workers", "guard", "guard_rows", "corpus", "more", "bounds", "inner"),
    ]
    assert found["workers"].help == "Workers at once; none by default."
    assert found["corpus"].is_required and not found["engine"].is_required
    assert settings_of(Inner)[0].help == "Peak rate."


STAGE = Stage(
    name="do",
    summary="Do it.",
    config=Outer,
    function="tests.unit.test_config:done",
    output="out",
)


def done(config: Outer, out: Path, *, progress: object = None) -> tuple[Outer, Path, object]:
    """What the stage of these tests does."""
    return config, out, progress


def test_a_call_takes_nested_settings_and_files_beside_the_others() -> None:
    call = STAGE.call()
    config, out, progress = call(
        corpus="a.jsonl",
        more=["b.csv", Path("c.csv")],
        text_column="body",
        rate=0.25,
        bounds=[1, 2],
        out="folder",
        progress="bar",
    )
    assert config == Outer(
        corpus=CorpusConfig(paths=("a.jsonl",), text_column="body"),
        more=CorpusConfig(paths=("b.csv", "c.csv"), text_column="body"),
        inner=Inner(rate=0.25),
        bounds=(1, 2),
    )
    assert out == Path("folder") and progress == "bar"
    parameters = inspect.signature(call).parameters
    assert parameters["text_column"].default == "text"
    assert parameters["out"].default is inspect.Parameter.empty
    assert "body" not in parameters and "paths" not in parameters
    assert "guard_rows: Rows to learn from." in (call.__doc__ or "")
    with pytest.raises(TypeError):
        call(corpus="a.jsonl", out="folder", unknown=1)
    with pytest.raises(TypeError):
        call(corpus="a.jsonl")


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_every_parameter_of_every_stage_says_what_it_is(stage: Stage) -> None:
    for one in stage.parameters():
        assert one.help, f"{stage.name}: {one.name} has no text in its docstring"


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Outer, out: Path, *, progress: object = None) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    monkeypatch.setattr("tests.unit.test_config.done", fail)
    with pytest.raises(MissingExtra) as found:
        STAGE.run({"corpus": "a.jsonl", "out": "folder"})
    assert 'pip install "monoxkit[train,cpu]"' in str(found.value)
    assert missing_extra(ModuleNotFoundError("No module named 'x'", name="x")) is None


def test_every_extra_that_is_named_exists_and_asks_for_its_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for module, names in EXTRA_OF.items():
        lines = [line for name in names.split(",") for line in extras[name]]
        package = module.replace("_", "[_-]")
        assert any(re.match(rf"{package}\b", line) for line in lines), module
