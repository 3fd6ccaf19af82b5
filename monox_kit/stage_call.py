"""A stage as a keyword call and a command offer it: parameters made from its configuration.

Those of nested configurations stand beside the others; the columns and the form of input files are
given once for all files of a call.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from monox_kit.config import Config, Separated, Setting, mark_of, settings_of
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.extras import missing_extra
from monox_kit.progress import Progress
from monox_kit.store.address import store_url

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
        output_may_be_url: whether it can be written to an object store.
        by_name: whether the function takes the settings one by one, and no configuration.
    """

    name: str
    summary: str
    config: type[Config]
    function: str
    output: str | None = None
    output_help: str = "Folder to write."
    positional: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    output_may_be_url: bool = False
    by_name: bool = False

    def parameters(self) -> list[Setting]:
        """The parameters of the call in their order, those that must be given first."""
        found = {one.name: one for one in self._flat(self.config)}
        if self.output is not None:
            empty = inspect.Parameter.empty
            found[self.output] = Setting(
                name=self.output, type=str | Path, default=empty, help=self.output_help
            )
        ordered = sorted(
            found.values(),
            key=lambda one: (one.name not in self.positional, not one.is_required),
        )
        return [
            dataclasses.replace(one, default=self.defaults.get(one.name, one.default))
            for one in ordered
        ]

    def _flat(self, config: type[Config]) -> Iterator[Setting]:
        has_files = False
        for setting in settings_of(config):
            nested = nested_config(setting.type)
            if nested is None:
                yield setting
            elif issubclass(nested, CorpusConfig):
                has_files = True
                default = setting.default if setting.is_required else ()
                yield dataclasses.replace(
                    setting, type=tuple[str, ...], default=default, is_files=True
                )
            else:
                yield from self._flat(nested)
        if has_files:
            own = _names(config)
            for setting in settings_of(CorpusConfig):
                if setting.name != _PATHS and setting.name not in own:
                    yield setting

    def configured(self, given: Mapping[str, Any]) -> Config:
        """The configuration of a call.

        Args:
            given: parameters by name; those that are left out have their defaults.

        Raises:
            ConfigError: a setting does not fit.
        """
        self._require_files(given)
        return self._filled(self.config, {**self.defaults, **given})

    def _require_files(self, given: Mapping[str, Any]) -> None:
        """Refuse the form of input files where none are given: it would change nothing."""
        files = [one.name for one in self.parameters() if one.is_files]
        if not files or any(given.get(name) for name in files):
            return
        for one in settings_of(CorpusConfig):
            value = given.get(one.name)
            if value is not None and _as_declared(value, one.type) != one.default:
                shown = value if isinstance(value, str) else " ".join(map(str, value))
                needed = " or ".join(f"`{name}`" for name in files)
                raise ConfigError(
                    f"`{one.name}` {shown}: it says how input files are read, and {needed} is not "
                    f"given. Give files, or leave `{one.name}` out."
                )

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
                    value = tuple(
                        _read_as(setting.type, part) for part in value.split(separated.by)
                    )
                if nested is not None:
                    own = _names(config)
                    shared = {name: one for name, one in given.items() if name not in own}
                    value = _files(value, shared, setting)
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
        outputs = {} if self.output is None else {self.output: self._place(values.pop(self.output))}
        config = self.configured(values)
        module, _, name = self.function.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
            if not self.by_name:
                return function(config, *outputs.values(), progress=progress)
            settings = {one.name: getattr(config, one.name) for one in settings_of(self.config)}
            if "progress" in inspect.signature(function).parameters:
                settings["progress"] = progress
            return function(**settings, **outputs)
        except ModuleNotFoundError as error:
            raise missing_extra(error) or error from error

    def _place(self, value: str | Path) -> str | Path:
        """Where the output goes: a path, or a URL as it was given."""
        url = store_url(value)
        if url is None:
            return Path(value)
        if not self.output_may_be_url:
            raise ConfigError(
                f"`{self.output}` {url}: expected a path on this machine, found a URL. Give a path."
            )
        return value

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


def _names(config: type[Config]) -> frozenset[str]:
    """The names of a configuration's own settings, which go before those of its files."""
    return frozenset(setting.name for setting in settings_of(config))


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


def _read_as(hint: Any, part: str) -> str | int | float:
    """One of several values that are written as one text: a number where the setting has such."""
    kinds = {get_args(kind)[0] for kind in (hint, *get_args(hint)) if get_args(kind)}
    if int in kinds and part.isascii() and part.isdigit():
        return int(part)
    if float in kinds:
        with suppress(ValueError):
            return float(part)
    return part


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
