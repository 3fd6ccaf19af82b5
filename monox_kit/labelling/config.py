"""How a corpus is labelled, and what a labelling run reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

from monox_kit.config import Config, Needs, OnlyWith, Rule
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.models.folder import FP32, Backend, RunPrecision
from monox_kit.models.long_texts import Long
from monox_kit.results import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConfig(Config):
    """How a corpus is labelled.

    Attributes:
        model: the teacher: an ONNX bundle, or a PyTorch folder with `teacher` torch.
        corpus: text files, globs, URLs or hub datasets, in the order of the store's rows.
        teacher: the backend that runs the model: onnx, or torch, the reference.
        max_length: truncate texts at this many tokens [default: the bundle's own].
        long: what is read of longer texts: head, head-tail, windows:mean or windows:max [default:
            the bundle's own].
        shard_rows: rows of a shard, which is the unit of commit and of resuming.
        batch_tokens: padded tokens per batch [default: measured here, where none of this setting,
            `sessions` and `threads` is given].
        sessions: batches that run at once [default: measured, as above].
        threads: threads of each of those batches [default: measured, as above].
        dtype: type of the stored logits.
        ignore_labels: leave gold labels in the corpus out of the store.
        provider: what runs the graph: cpu, cuda or tensorrt of ONNX Runtime, openvino (its own
            runtime), openvino-ep (through onnxruntime-openvino), or auto for the one that the
            bundle was measured on.
        device: PyTorch's device: cpu, cuda or cuda:N.
        precision: PyTorch's precision; bf16 runs matrix products under autocast [default: fp32].
            An ONNX bundle has its own.
        compile: let PyTorch compile the model first.
        guard: fraction of rows that are to have the fp32 graph's label, such as 0.999. Rows whose
            two largest logits are too close for that are computed again by the fp32 graph.
        guard_rows: rows of each half of the guard's sample, on which it learns and is audited
            [default: a fiftieth of the corpus, 200 to 2,000].
        guard_precision: precision of the rows that are computed again. bf16 takes about half the
            time, needs OpenVINO on a CPU with bf16, and is audited against fp32.
        guard_kl: mean KL divergence from fp32's distributions, in nats, that rows are to have at
            most, such as 0.001. At T = 1; more rows are computed again.
        begin: scan the corpus, choose the run plan and learn the guard, and label no row.
        shard_range: label these shards alone, of a store that has been begun; A to B - 1 [default:
            all]. Other runs, on other machines, may label the others meanwhile.
        engine: where the shards are labelled: in this process, or by the workers of a Ray cluster.
        address: address of the Ray cluster, such as auto [default: one on this machine, or where
            RAY_ADDRESS says].
        workers: workers of the cluster at once [default: as many as it has room for].
        staging: folder for shards on their way to a URL, on each machine [default: one in the
            cache].
    """

    RULES: ClassVar[tuple[Rule, ...]] = (
        OnlyWith(
            ("guard", "guard_rows", "guard_precision", "guard_kl", "sessions", "threads"),
            "teacher",
            ("onnx",),
        ),
        OnlyWith(("precision", "compile"), "teacher", ("torch",)),
        Needs(("guard_rows", "guard_precision", "guard_kl"), "guard", 0.999),
        OnlyWith(("address", "workers"), "engine", ("ray",)),
        OnlyWith(("shard_range",), "begin", (False,)),
        OnlyWith(("begin",), "engine", ("local",)),
    )

    model: str
    corpus: CorpusConfig
    teacher: Backend = "onnx"
    max_length: Annotated[int, Ge(4)] | None = None
    long: Long | None = None
    shard_rows: Annotated[int, Ge(1)] = 16_384
    batch_tokens: Annotated[int, Ge(1)] | None = None
    sessions: Annotated[int, Ge(1), Le(1024)] | None = None
    threads: Annotated[int, Ge(1), Le(1024)] | None = None
    dtype: Literal["float32", "float16"] = "float32"
    ignore_labels: bool = False
    provider: str = "auto"
    device: str = "cpu"
    precision: RunPrecision | None = None
    compile: bool = False
    guard: Annotated[float, Gt(0), Lt(1)] | None = None
    guard_rows: Annotated[int, Ge(50)] | None = None
    guard_precision: RunPrecision = FP32
    guard_kl: Annotated[float, Gt(0), Lt(math.inf)] | None = None
    begin: bool = False
    shard_range: tuple[int, int] | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: Annotated[int, Ge(1)] | None = None
    staging: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSummary(Result):
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
        num_truncated_rows: rows of this run that the cut at `max_length` took tokens from.
        num_truncated_tokens: the tokens that they lost; of very long texts estimated.
        num_document_tokens: tokens of all rows of this run before the cut; equal ones count each.
        provider: what ran the graph; None for PyTorch.
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
    num_truncated_rows: int = 0
    num_truncated_tokens: int = 0
    num_document_tokens: int = 0
    provider: str | None
    plan: Mapping[str, Any] = field(default_factory=dict)
    guard: Mapping[str, Any] | None = None
    cluster: Mapping[str, Any] | None = None
    complete: bool
    store_digest: str | None

    @property
    def reused(self) -> bool:
        """Whether earlier runs had finished the store."""
        return self.complete and self.rows_per_s is None
