"""Options that several commands share, and how their values become the library's configurations."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, TypedDict

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from monox_kit.corpora.corpus import CorpusConfig
    from monox_kit.training.config import LoopConfig


class DevSetOptions(TypedDict):
    """What `dev_sets` gives."""

    report_dev: CorpusConfig | None
    select_on: tuple[str, ...]


# Options that take several values after one name: `--corpus a.jsonl b.jsonl`. Click knows only
# repeated options, so `spread` turns the first form into the second.
SEVERAL_VALUES: Final = (
    "--corpus",
    "--test",
    "--input",
    "--train",
    "--dev",
    "--report-dev",
    "--select-on",
    "--labelled",
    "--unlabelled",
    "--store-weight",
    "--check",
    "--label-names",
    "--language",
)
STORES: Final = "--store"

AsJson = Annotated[bool, typer.Option("--json", help="Show the result as JSON.")]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", help="Truncate texts at this many tokens [default: the model's]."),
]
BatchTokens = Annotated[
    int,
    typer.Option("--batch-tokens", help="Padded tokens per batch; changes speed and memory only."),
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider", help="Execution provider of ONNX Runtime: cpu, cuda, tensorrt or openvino."
    ),
]
Device = Annotated[str, typer.Option("--device", help="PyTorch device: cpu, cuda or cuda:N.")]
LabelsFile = Annotated[
    str | None,
    typer.Option(
        "--labels", help="A labels.json, which gives the class names in order and the problem type."
    ),
]

Format = Annotated[
    str, typer.Option("--format", help="Input format: auto, jsonl, csv, tsv, parquet or text.")
]
TextColumn = Annotated[str, typer.Option("--text-column", help="Column that holds the text.")]
PairColumn = Annotated[
    str, typer.Option("--pair-column", help="Column that holds the second text of a pair.")
]
LabelColumn = Annotated[
    str, typer.Option("--label-column", help="Column that holds the gold label or labels.")
]
IdColumn = Annotated[
    str, typer.Option("--id-column", help="Column that holds a key for each document.")
]
LangColumn = Annotated[
    str, typer.Option("--lang-column", help="Column that holds the language tag, such as de.")
]
Pair = Annotated[
    str,
    typer.Option(
        "--pair", help="Whether rows are text pairs: auto, required, or none to ignore them."
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option("--delimiter", help="Between fields of CSV and TSV [default: by the header]."),
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", help="Encoding of text files [default: UTF-8, or as detected]."),
]
Quoting = Annotated[
    str,
    typer.Option(
        "--quoting", help="Quotes in CSV and TSV: minimal, none; auto: none for TSV alone."
    ),
]
LabelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--label-names",
        help="Names of the classes 0, 1, ... that files or the model give as numbers.",
    ),
]
Language = Annotated[
    list[str] | None,
    typer.Option("--language", help="Language of a file whose rows do not name one, as FILE=TAG."),
]

NewHead = Annotated[
    bool,
    typer.Option(
        "--new-head", help="Start with a new head, where the model has one of another task."
    ),
]
LearningRate = Annotated[
    float, typer.Option("--learning-rate", help="Peak learning rate of AdamW.")
]
HeadFactor = Annotated[
    float,
    typer.Option(
        "--head-factor", help="Learning rate of the new head, as a multiple of the encoder's."
    ),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", help="Rows of one step, over all processes.")
]
BudgetTokens = Annotated[
    int | None,
    typer.Option(
        "--batch-tokens",
        help="Padded tokens of one step instead of --batch-size; needs --max-steps.",
    ),
]
Accumulate = Annotated[
    int,
    typer.Option(
        "--accumulate",
        help="Micro-batches that a step is split into: less memory, the same gradient.",
    ),
]
MaxGradNorm = Annotated[
    float, typer.Option("--max-grad-norm", help="Scale gradients down to this L2 norm.")
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--patience", help="Stop early after this many dev evaluations without a better one."
    ),
]
ReportDev = Annotated[
    list[str] | None,
    typer.Option(
        "--report-dev",
        help="Gold-labelled text in any languages, whose results are reported alone.",
    ),
]
SelectOn = Annotated[
    list[str] | None,
    typer.Option(
        "--select-on",
        help="Sets that choose the weights: dev, or languages of --report-dev [default: dev].",
    ),
]
TensorBoard = Annotated[
    str | None, typer.Option("--tensorboard", help="Folder to write TensorBoard events to.")
]
MaxSteps = Annotated[
    int | None, typer.Option("--max-steps", help="Number of steps, instead of --epochs.")
]
Epochs = Annotated[int, typer.Option("--epochs", help="Passes over the training rows.")]
Schedule = Annotated[
    str,
    typer.Option(
        "--schedule", help="Learning rate after the warm-up: linear (falls to 0) or constant."
    ),
]
WarmupFraction = Annotated[
    float,
    typer.Option(
        "--warmup-fraction", help="Fraction of the steps in which the learning rate rises."
    ),
]
WeightDecay = Annotated[
    float,
    typer.Option(
        "--weight-decay", help="Weight decay of AdamW; biases, norms and embeddings have none."
    ),
]
Embeddings = Annotated[
    str,
    typer.Option(
        "--embeddings",
        help="How word embeddings are trained: frozen, sparse (only tokens in the data) or full. "
        "sparse and full give the same model.",
    ),
]
FreezeLayers = Annotated[
    int,
    typer.Option(
        "--freeze-layers",
        help="Keep this many of the lowest layers, and the embeddings, as they are.",
    ),
]
EvalEvery = Annotated[
    int | None,
    typer.Option(
        "--eval-every", help="Steps between dev evaluations [default: the steps of an epoch]."
    ),
]
CheckpointEvery = Annotated[
    int, typer.Option("--checkpoint-every", help="Steps between two checkpoints.")
]
Seed = Annotated[
    int,
    typer.Option("--seed", help="Seed of the head's weights, the order of the rows and dropout."),
]
Workers = Annotated[
    int,
    typer.Option("--workers", help="Threads that tokenize ahead; they do not change the result."),
]
TrainPrecision = Annotated[
    str,
    typer.Option(
        "--precision", help="Precision: fp32, bf16, or auto: bf16 where the hardware has it."
    ),
]


class ArgumentsFirst(TyperCommand):
    """A command whose usage line shows its arguments before its options, as `spread` needs them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        options, *arguments = super().collect_usage_pieces(ctx)
        return [*arguments, options]


def corpus_config(paths: Sequence[str], given: Mapping[str, Any]) -> CorpusConfig:
    """The library's configuration of some input files.

    Args:
        paths: the files.
        given: the command's options by their names; others among them are left alone.
    """
    from dataclasses import fields

    from monox_kit.corpora.corpus import CorpusConfig

    settings = {
        field.name: given[field.name] for field in fields(CorpusConfig) if field.name in given
    }
    for name in ("label_names", "language"):
        settings[name] = tuple(settings.get(name) or ())
    return CorpusConfig(**{**settings, "paths": tuple(paths)})


def dev_sets(
    report_dev: Sequence[str] | None, select_on: Sequence[str] | None, given: Mapping[str, Any]
) -> DevSetOptions:
    """The settings of a training command that say which dev sets are reported and which choose.

    Args:
        report_dev: files of `--report-dev`.
        select_on: names of `--select-on`.
        given: as for `corpus_config`.
    """
    return {
        "report_dev": corpus_config(report_dev, given) if report_dev else None,
        "select_on": tuple(select_on or ("dev",)),
    }


def loop_config(given: Mapping[str, Any]) -> LoopConfig:
    """How a training command trains: each of the library's settings is an option of that name.

    Args:
        given: the command's options by their names; others among them are left alone.
    """
    from dataclasses import fields

    from monox_kit.training.config import LoopConfig

    return LoopConfig(**{field.name: given[field.name] for field in fields(LoopConfig)})


def shard_bounds(value: str | None) -> tuple[int, int] | None:
    """The numbers of `--shard-range A:B`.

    Raises:
        ConfigError: it has another form.
    """
    if value is None:
        return None
    first, _, behind = value.partition(":")
    if not (first.isascii() and first.isdigit() and behind.isascii() and behind.isdigit()):
        from monox_kit.errors import ConfigError

        raise ConfigError(
            f"--shard-range: expected A:B, two numbers of shards, found {value!r}. 0:10 stands for "
            "the first ten."
        )
    return int(first), int(behind)


def option_name(setting: str) -> str:
    """The option of a setting: --guard-rows of guard_rows."""
    return f"--{setting.replace('_', '-')}"


def as_options(message: str, settings: Container[str] | None = None) -> str:
    """A message of the library, which names settings in backticks, with --options instead.

    Args:
        message: what the library says.
        settings: the names that are settings; None takes every word in backticks for one.
    """

    def option(found: re.Match[str]) -> str:
        is_setting = settings is None or found[1] in settings
        return option_name(found[1]) if is_setting else found[1]

    return re.sub(r"`([a-z]+(?:_[a-z]+)*)`", option, message)


def spread(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--test a b` written as `--test a --test b`.

    Only for options of several values; what follows one up to the next option belongs to it, so
    a command's positional argument stands before its options.
    """
    out: list[str] = []
    for option, values in _by_option(arguments):
        if option in _several(arguments) and values:
            out += [part for value in values for part in (option, value)]
        else:
            out += [*filter(None, [option]), *values]
    return out


def values_given(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Each option with all the values that follow it."""
    found: dict[str, list[str]] = {}
    for option, values in _by_option(arguments):
        name, has_value, value = option.partition("=")
        found.setdefault(name, []).extend([value, *values] if has_value else values)
    return found


def require_values(arguments: Sequence[str]) -> None:
    """Check that no argument and no option's value is empty, as an unset variable of a shell is.

    An empty path would be the current folder, an empty list of names the default.

    Raises:
        ConfigError: one is.
    """
    for option, values in values_given(arguments).items():
        if not all(value.strip() for value in values):
            from monox_kit.errors import ConfigError

            raise ConfigError(
                f"{option or 'argument'}: expected a value, found an empty one. Check the variable "
                "that it is from, or leave it out."
            )


def _several(arguments: Sequence[str]) -> set[str]:
    return {*SEVERAL_VALUES, *((STORES,) if "train-student" in arguments else ())}


def _by_option(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each option with what follows it up to the next; what stands before the first has none."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for argument in arguments:
        if argument.startswith("--"):
            found.append((argument, []))
        else:
            found[-1][1].append(argument)
    return found
