"""How a corpus is labelled, and what a labelling run reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.errors import ConfigError
from monox_kit.models.folder import FP32, Backend, RunPrecision


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConfig:
    """How a corpus is labelled.

    Attributes:
        teacher: the backend that runs the model; `torch` is the reference.
        model: an ONNX bundle for `onnx`, a PyTorch folder for `torch`.
        corpus: the texts.
        max_length: the cut in tokens; None for the bundle's own.
        shard_rows: rows of a shard, the unit of commit and of resuming.
        batch_tokens: padded tokens per batch.
        sessions: batches that ONNX Runtime runs at once.
        threads: of each of them. Where none of these three is given, ONNX Runtime's are measured;
            where one is, the others take their plain defaults.
        dtype: of the stored logits.
        ignore_labels: whether gold labels in the corpus are left out of the store.
        provider: ONNX Runtime's execution provider; `auto` is the one that the bundle was
            measured on.
        device: PyTorch's device.
        precision: PyTorch's; `bf16` runs matrix products under autocast; None for fp32. An ONNX
            bundle has its own.
        compiled: whether PyTorch compiles the model first.
        guard: fraction of rows that are to have the fp32 graph's label: those whose two largest
            logits are too close for that are computed again by the fp32 graph. None trusts the
            graph.
        guard_rows: rows of each half of the guard's sample, on which it learns and is audited;
            None for a fiftieth of the corpus, 200 to 2,000.
        guard_precision: what the fp32 graph computes those rows again in. `bf16` takes about half
            the time, needs OpenVINO's provider on a CPU with bf16, and is audited against fp32.
        guard_kl: beside `guard`, the mean KL divergence from fp32's distributions at T = 1, in
            nats, that rows are to have at most: more of them are computed again. None for any.
        begin: whether the store is only begun: the corpus is scanned and the guard learned, and no
            row is labelled.
        shard_range: the first shard to label and the one behind the last, of a store that has been
            begun; None for all. Other runs, on other machines, may label the others meanwhile.
        engine: `ray` gives the shards to the workers of a Ray cluster.
        address: of the cluster; None for one on this machine, or where RAY_ADDRESS says.
        workers: of the cluster at once; None for as many as it has room for.
        staging: a folder on each machine for shards on their way to a URL; None for one in the
            cache.
    """

    teacher: Backend
    model: str
    corpus: CorpusConfig
    max_length: Annotated[int, Field(ge=4)] | None = None
    shard_rows: Annotated[int, Field(ge=1)] = 16_384
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    sessions: Annotated[int, Field(ge=1, le=1024)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    dtype: Literal["float32", "float16"] = "float32"
    ignore_labels: bool = False
    provider: str = "auto"
    device: str = "cpu"
    precision: RunPrecision | None = None
    compiled: bool = False
    guard: Annotated[float, Field(gt=0, lt=1)] | None = None
    guard_rows: Annotated[int, Field(ge=50)] | None = None
    guard_precision: RunPrecision = FP32
    guard_kl: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    begin: bool = False
    shard_range: tuple[int, int] | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: Annotated[int, Field(ge=1)] | None = None
    staging: str | None = None

    def require_consistent(self) -> None:
        """Check that no option was given that the chosen backend would ignore.

        Raises:
            ConfigError: one was.
        """
        of_guard = {
            "--guard-rows": self.guard_rows,
            "--guard-precision": None if self.guard_precision == FP32 else self.guard_precision,
            "--guard-kl": self.guard_kl,
        }
        onnx_only = {
            "--guard": self.guard,
            **of_guard,
            "--sessions": self.sessions,
            "--threads": self.threads,
        }
        torch_only = {
            "--precision": self.precision,
            "--compile": "on" if self.compiled else None,
        }
        unused, other = (torch_only, "torch") if self.teacher == "onnx" else (onnx_only, "onnx")
        for option, value in unused.items():
            if value is not None:
                raise ConfigError(
                    f"{option} {value}: expected with --teacher {other} only, found --teacher "
                    f"{self.teacher}. Leave it out or change the teacher."
                )
        for option, value in of_guard.items():
            if self.guard is None and value is not None:
                raise ConfigError(
                    f"{option} {value}: expected together with --guard, found none. "
                    "Give --guard 0.999, or leave it out."
                )
        for option, value in {"--address": self.address, "--workers": self.workers}.items():
            if value is not None and self.engine != "ray":
                raise ConfigError(
                    f"{option} {value}: expected with --engine ray only, found --engine "
                    f"{self.engine}. Leave it out, or give --engine ray."
                )
        if self.begin and (self.shard_range is not None or self.engine == "ray"):
            other = "--engine ray" if self.shard_range is None else "--shard-range"
            raise ConfigError(
                f"--begin: it labels no shard, so that {other} has nothing to do. Leave one of the "
                "two out."
            )
        if self.engine == "ray" and ":" in self.device:
            raise ConfigError(
                f"--device {self.device}: expected cpu or cuda with --engine ray, which gives each "
                "worker a GPU of its own, found a number. Leave the number out."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSummary:
    """What a labelling run did.

    Attributes:
        store: the store's folder or URL.
        num_rows: rows of the finished store; `num_rows_done` of them are there.
        num_rows_done: rows of the shards that are there.
        num_shards: shards of the finished store.
        num_resumed_rows: rows that earlier runs had already labelled.
        labelled_s: seconds from the first batch to the last commit of this run.
        rows_per_s: rows of this run over `labelled_s`; None where it had nothing left to do.
        tokens_per_s: real tokens that went through the model over `labelled_s`; rows that the
            guard computed again count once.
        padding_fraction: padding among the tokens of this run; None where it had nothing to do.
        num_repeated_rows: rows of this run whose text an equal one had settled.
        num_recomputed_rows: rows that are there and that the guard computed again.
        provider: ONNX Runtime's execution provider; None for PyTorch.
        plan: batches at once, threads (ONNX Runtime alone), padded tokens per batch, and how they
            were chosen; empty where nothing was left to do.
        guard: what the guard was told and what it learned, and its price; None
            without one.
        cluster: workers at once, workers lost, seconds that they were busy and that their shards
            were handed out; None without Ray.
        complete: whether every shard is there; always without a shard range.
        store_digest: the finished store's digest; None while it is incomplete.
    """

    store: Path | str
    num_rows: int
    num_rows_done: int
    num_shards: int
    num_resumed_rows: int
    labelled_s: float
    rows_per_s: float | None
    tokens_per_s: float | None
    padding_fraction: float | None
    num_repeated_rows: int
    num_recomputed_rows: int
    provider: str | None
    plan: Mapping[str, Any] = field(default_factory=dict)
    guard: Mapping[str, Any] | None = None
    cluster: Mapping[str, Any] | None = None
    complete: bool
    store_digest: str | None

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON values."""
        return {**asdict(self), "store": str(self.store)}
