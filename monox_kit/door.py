"""The stages as keyword calls: each takes what its command takes, under the same names.

A call's parameters are the settings of its configuration. Those of nested configurations stand
beside the others; the columns and the form of input files are given once for all files of a call.
`calls` has the functions, and `calls.pyi` their types, which `make docs` writes anew.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from monox_kit.config import Config, Separated, Setting, mark_of, settings_of
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.demo.config import DemoConfig
from monox_kit.evaluation.comparison import CompareConfig
from monox_kit.evaluation.run import EvaluateConfig
from monox_kit.exporting.config import ExportConfig
from monox_kit.extras import missing_extra
from monox_kit.labelling.config import LabelConfig
from monox_kit.prediction.config import PredictConfig
from monox_kit.progress import Progress
from monox_kit.tasks.debian.prepare import DebianConfig
from monox_kit.training.config import StudentConfig, TeacherConfig
from monox_kit.trimming.config import TrimConfig

_PATHS = "paths"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the product, as a call and a command offer it.

    Attributes:
        name: of the call.
        summary: one sentence on what it does.
        config: its configuration.
        function: where the library's function of a configuration stands, as `module:name`.
        output: the parameter that names what is written; None where nothing is.
        output_help: one sentence about it.
        positional: settings that are given without a name.
        defaults: defaults that differ from the configuration's own.
    """

    name: str
    summary: str
    config: type[Config]
    function: str
    output: str | None = None
    output_help: str = "Folder to write."
    positional: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def parameters(self) -> list[Parameter]:
        """The parameters of the call in their order, those that must be given first."""
        found = {one.name: one for one in self._flat(self.config)}
        if self.output is not None:
            empty = inspect.Parameter.empty
            found[self.output] = Parameter(self.output, str | Path, empty, self.output_help)
        ordered = sorted(
            found.values(),
            key=lambda one: (one.name not in self.positional, not one.is_required),
        )
        return [
            dataclasses.replace(one, default=self.defaults.get(one.name, one.default))
            for one in ordered
        ]

    def _flat(self, config: type[Config]) -> Iterator[Parameter]:
        has_files = False
        for setting in settings_of(config):
            nested = nested_config(setting.type)
            if nested is None:
                yield Parameter(
                    setting.name,
                    setting.type,
                    setting.default,
                    setting.help,
                    marks=setting.marks,
                )
            elif issubclass(nested, CorpusConfig):
                has_files = True
                yield Parameter(
                    setting.name,
                    tuple[str, ...],
                    setting.default if setting.is_required else (),
                    setting.help,
                    is_files=True,
                )
            else:
                yield from self._flat(nested)
        if has_files:
            for setting in settings_of(CorpusConfig):
                if setting.name != _PATHS:
                    yield Parameter(setting.name, setting.type, setting.default, setting.help)

    def configured(self, given: Mapping[str, Any]) -> Config:
        """The configuration of a call.

        Args:
            given: parameters by name; those that are left out have their defaults.

        Raises:
            ConfigError: a setting does not fit.
        """
        return self._filled(self.config, {**self.defaults, **given})

    def _filled(self, config: type[Config], given: Mapping[str, Any]) -> Config:
        values = {}
        for setting in settings_of(config):
            nested = nested_config(setting.type)
            if nested is not None and not issubclass(nested, CorpusConfig):
                values[setting.name] = self._filled(nested, given)
            elif setting.name in given:
                value = given[setting.name]
                separated = mark_of(setting.marks, Separated)
                if separated is not None and isinstance(value, str):
                    value = tuple(value.split(separated.by))
                if nested is not None:
                    value = _files(value, given, setting)
                values[setting.name] = _as_declared(value, setting.type)
        return config(**values)

    def run(self, given: Mapping[str, Any], progress: Progress | None = None) -> Any:
        """Run the stage and return its result.

        Args:
            given: parameters by name; those that are left out have their defaults.
            progress: where progress is reported.

        Raises:
            MonoxError: by kind, see `monox_kit.errors`.
        """
        values = {name: value for name, value in given.items() if name != "progress"}
        outputs = [] if self.output is None else [_path(values.pop(self.output))]
        module, _, name = self.function.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
            return function(self.configured(values), *outputs, progress=progress)
        except ModuleNotFoundError as error:
            raise missing_extra(error) or error from error

    def call(self) -> Callable[..., Any]:
        """The stage as a function with its own signature and docstring."""
        signature = self.signature()

        def call(*args: Any, progress: Progress | None = None, **given: Any) -> Any:
            bound = signature.bind(*args, progress=progress, **given).arguments
            return self.run(bound, progress)

        call.__name__ = call.__qualname__ = self.name
        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__doc__ = self.docstring()
        return call

    def docstring(self) -> str:
        """What the call does and what each parameter means."""
        lines = [self.summary, "", "Args:"]
        lines += [f"    {one.name}: {one.help}" for one in self.parameters()]
        lines += ["    progress: Where progress is reported.", "", "Raises:"]
        return "\n".join([*lines, "    MonoxError: by kind, see `monox_kit.errors`."])

    def signature(self) -> inspect.Signature:
        """The call's parameters for `inspect`, help pages and editors."""
        kinds = inspect.Parameter
        return inspect.Signature(
            [
                kinds(
                    one.name,
                    kinds.POSITIONAL_OR_KEYWORD
                    if one.name in self.positional
                    else kinds.KEYWORD_ONLY,
                    default=one.default,
                    annotation=one.type,
                )
                for one in self.parameters()
            ]
            + [kinds("progress", kinds.KEYWORD_ONLY, default=None, annotation=Progress | None)]
        )


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a stage's call.

    Attributes:
        name: of the parameter and, with hyphens, of the option.
        type: of its value.
        default: `inspect.Parameter.empty` where it must be given.
        help: one sentence.
        is_files: whether it names input files: one path, or several.
        marks: what its type is marked with.
    """

    name: str
    type: Any
    default: Any
    help: str
    is_files: bool = False
    marks: tuple[Any, ...] = ()

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


def nested_config(hint: Any) -> type[Config] | None:
    """The configuration that a type is, or may be; None for a plain setting."""
    for part in (hint, *get_args(hint)):
        if isinstance(part, type) and issubclass(part, Config):
            return part
    return None


def _files(value: Any, given: Mapping[str, Any], setting: Setting) -> CorpusConfig | None:
    """Input files with the columns and the form that the call gives for all of them."""
    if isinstance(value, CorpusConfig) or value is None:
        return value
    paths = _as_declared(value, tuple[str, ...])
    if not paths and not setting.is_required:
        return None
    shared = {
        # An option of several values that is not given comes as None.
        one.name: _as_declared(
            one.default if given[one.name] is None else given[one.name], one.type
        )
        for one in settings_of(CorpusConfig)
        if one.name in given
    }
    return CorpusConfig(**{**shared, _PATHS: paths})


def _as_declared(value: Any, hint: Any) -> Any:
    """A list as the tuple that a setting is, one value as a tuple of it, text as a path."""
    kinds = (hint, *get_args(hint))
    if any(getattr(kind, "__origin__", None) is tuple for kind in kinds) and value is not None:
        inner = next(kind for kind in kinds if getattr(kind, "__origin__", None) is tuple)
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        return tuple(_as_declared(one, inner.__args__[0]) for one in values)
    if Path in kinds and str not in kinds and isinstance(value, str):
        return Path(value)
    if hint is str and isinstance(value, Path):
        return str(value)
    return value


def _path(value: str | Path) -> str | Path:
    """A path, or a URL as it was given."""
    return value if isinstance(value, str) and "://" in value else Path(value)


# The stages by the name of their call.
STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="demo",
            summary="Run the whole pipeline on real text.",
            config=DemoConfig,
            function="monox_kit.demo.recipe:run_demo",
            output="out",
            output_help="Folder to write the run to.",
        ),
        Stage(
            name="data_debian",
            summary="Prepare Debian's package descriptions as a corpus.",
            config=DebianConfig,
            function="monox_kit.tasks.debian.prepare:prepare_debian",
            output="out",
            output_help="Folder to write the corpus to.",
        ),
        Stage(
            name="train_teacher",
            summary="Fine-tune an English encoder on gold labels with cross-entropy.",
            config=TeacherConfig,
            function="monox_kit.training.run:train_teacher",
            output="out",
            output_help="Folder to write the model to.",
        ),
        Stage(
            name="train_student",
            summary="Train a multilingual student from stores and gold labels.",
            config=StudentConfig,
            function="monox_kit.training.run:train_student",
            output="out",
            output_help="Folder to write the model to.",
            # A student keeps the languages that the labels do not show.
            defaults={"embeddings": "frozen"},
        ),
        Stage(
            name="export",
            summary="Write the ONNX bundle of a fine-tuned model, once it agrees with PyTorch.",
            config=ExportConfig,
            function="monox_kit.exporting.run:export_model",
            output="out",
            output_help="Bundle folder to write.",
            positional=("model",),
        ),
        Stage(
            name="trim",
            summary="Write a model without the tokens that some texts do not use.",
            config=TrimConfig,
            function="monox_kit.trimming.run:trim",
            output="out",
            output_help="Model folder to write.",
            positional=("model",),
        ),
        Stage(
            name="label",
            summary="Write a teacher's logits for every row of a corpus to a store.",
            config=LabelConfig,
            function="monox_kit.labelling:label_corpus",
            output="store",
            output_help="Logit store to write or to finish: a folder or a URL.",
        ),
        Stage(
            name="predict",
            summary="Write labels with probabilities for every row of some files to one file.",
            config=PredictConfig,
            function="monox_kit.prediction.run:predict",
            output="out",
            output_help="File to write; - writes to the standard output.",
            positional=("model",),
        ),
        Stage(
            name="evaluate",
            summary="Measure a model in every language of some labelled files.",
            config=EvaluateConfig,
            function="monox_kit.evaluation.run:evaluate",
            positional=("model",),
        ),
        Stage(
            name="compare",
            summary="Say by language whether one model is better than another on the same rows.",
            config=CompareConfig,
            function="monox_kit.evaluation.comparison:compare",
            positional=("first", "second"),
        ),
    )
}
