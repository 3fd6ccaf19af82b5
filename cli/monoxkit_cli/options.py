"""Options that several commands share, and how their values become the library's configurations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
)
STORES: Final = "--store"

AsJson = Annotated[bool, typer.Option("--json", help="Show the result as JSON.")]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", help="Cut texts at this many tokens [default: the model's]."),
]
BatchTokens = Annotated[
    int, typer.Option("--batch-tokens", help="Padded tokens per batch: speed and memory only.")
]
Provider = Annotated[
    str, typer.Option("--provider", help="Execution provider: cpu, cuda, tensorrt or openvino.")
]
Device = Annotated[str, typer.Option("--device", help="PyTorch device: cpu, cuda or cuda:N.")]
LabelsFile = Annotated[
    str | None, typer.Option("--labels", help="labels.json: class names in order, problem type.")
]

Format = Annotated[
    str, typer.Option("--format", help="Input format: auto, jsonl, csv, tsv, parquet or text.")
]
TextColumn = Annotated[str, typer.Option("--text-column", help="Column of the text.")]
PairColumn = Annotated[str, typer.Option("--pair-column", help="Column of a pair's second text.")]
LabelColumn = Annotated[
    str, typer.Option("--label-column", help="Column of the gold label or labels.")
]
IdColumn = Annotated[str, typer.Option("--id-column", help="Column of the document's key.")]
LangColumn = Annotated[str, typer.Option("--lang-column", help="Column of the language tag.")]
Pair = Annotated[
    str, typer.Option("--pair", help="Text pairs: auto, required, or none to ignore them.")
]

NewHead = Annotated[
    bool,
    typer.Option(
        "--new-head", help="Start with a new head, where the model has one of another task."
    ),
]
LearningRate = Annotated[float, typer.Option("--learning-rate", help="Peak rate of AdamW.")]
HeadFactor = Annotated[
    float, typer.Option("--head-factor", help="The fresh head's rate, times the encoder's.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Rows per step, over all processes.")]
BudgetTokens = Annotated[
    int | None,
    typer.Option("--batch-tokens", help="Padded tokens per step, not rows; needs --max-steps."),
]
Accumulate = Annotated[
    int, typer.Option("--accumulate", help="Micro-batches of a step: less memory, same gradient.")
]
MaxGradNorm = Annotated[
    float, typer.Option("--max-grad-norm", help="Gradients are scaled down to this L2 norm.")
]
Patience = Annotated[
    int | None,
    typer.Option("--patience", help="End after so many dev evaluations that are no better."),
]
ReportDev = Annotated[
    list[str] | None,
    typer.Option("--report-dev", help="Gold labels in any languages: reported, choose nothing."),
]
SelectOn = Annotated[
    list[str] | None,
    typer.Option(
        "--select-on",
        help="Sets that choose the weights: dev, languages of --report-dev [default: dev].",
    ),
]
TensorBoard = Annotated[
    str | None, typer.Option("--tensorboard", help="Folder for TensorBoard's events.")
]
MaxSteps = Annotated[
    int | None, typer.Option("--max-steps", help="Steps in all, instead of --epochs.")
]
Epochs = Annotated[int, typer.Option("--epochs", help="Passes over the rows.")]
Schedule = Annotated[
    str, typer.Option("--schedule", help="Rate after the warm-up: linear (to 0) or constant.")
]
WarmupFraction = Annotated[
    float, typer.Option("--warmup-fraction", help="Part of the steps that the rate rises in.")
]
WeightDecay = Annotated[
    float, typer.Option("--weight-decay", help="AdamW's; not on biases, norms, embeddings.")
]
Embeddings = Annotated[
    str,
    typer.Option(
        "--embeddings",
        help="Word embeddings: frozen, sparse (tokens that occur) or full; the last two end alike.",
    ),
]
FreezeLayers = Annotated[
    int,
    typer.Option("--freeze-layers", help="Leave so many lowest layers, and all embeddings, as is."),
]
EvalEvery = Annotated[
    int | None,
    typer.Option("--eval-every", help="Steps between dev evaluations [default: an epoch]."),
]
CheckpointEvery = Annotated[
    int, typer.Option("--checkpoint-every", help="Steps between checkpoints.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of weights, order and dropout.")]
Workers = Annotated[
    int, typer.Option("--workers", help="Threads that tokenize ahead; the result is the same.")
]
TrainPrecision = Annotated[
    str, typer.Option("--precision", help="auto, fp32 or bf16; auto: bf16 where hardware has it.")
]


class ArgumentsFirst(TyperCommand):
    """A command whose usage line shows its arguments before its options, as `spread` needs them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        options, *arguments = super().collect_usage_pieces(ctx)
        return [*arguments, options]


def corpus_config(
    paths: Sequence[str],
    *,
    format: str,
    text_column: str,
    pair_column: str,
    label_column: str,
    id_column: str = "id",
    lang_column: str = "lang",
    pair: str = "auto",
) -> CorpusConfig:
    """The library's configuration of some input files."""
    from monox_kit.corpora.corpus import CorpusConfig

    return CorpusConfig(
        paths=tuple(paths),
        format=format,  # type: ignore[arg-type]  # checked by the configuration itself
        text_column=text_column,
        pair_column=pair_column,
        label_column=label_column,
        id_column=id_column,
        lang_column=lang_column,
        pair=pair,  # type: ignore[arg-type]
    )


def dev_sets(
    report_dev: Sequence[str] | None, select_on: Sequence[str] | None, **columns: str
) -> DevSetOptions:
    """The settings of a training command that say which dev sets are reported and which choose.

    Args:
        report_dev: files of `--report-dev`.
        select_on: names of `--select-on`.
        columns: as for `corpus_config`.
    """
    return {
        "report_dev": corpus_config(report_dev, **columns) if report_dev else None,
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


def as_options(message: str) -> str:
    """A message of the library, which names settings in backticks, with --options instead."""
    return re.sub(r"`([a-z]+(?:_[a-z]+)*)`", lambda found: option_name(found[1]), message)


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
