"""What a run of the labelling benchmark needs on the disk before its first round."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from contenders.contract import Job
from contenders.table import REFERENCE, ROWS
from monox_kit.corpora.corpus import Corpus, CorpusConfig
from monox_kit.data import Document
from monox_kit.digest import digest_bytes, digest_file
from monox_kit.durable import is_free, new_folder, remove_folder, write_file
from monox_kit.errors import ConfigError, CorpusError
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.exporting.config import DEFAULT_FORM, FORMS
from monox_kit.exporting.graph import GRAPHS_VERSION, write_form
from monox_kit.hardware import num_threads
from monox_kit.models.folder import ONNX_FILE, ModelFolder, open_folder
from monox_kit.models.tokenizer import Tokenizer
from monox_kit.models.torch_backend import load_classifier
from monox_kit.progress import Progress

OURS = "monoxkit"  # how the names of our rows begin
CONTENDERS = tuple(name for name in ROWS if name != REFERENCE)
FP32_ROW, GUARD_ROW, OPENVINO_ROW = "monoxkit-fp32", "monoxkit-guard", "monoxkit-openvino"


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelBenchmarkConfig:
    """What is compared with what. A row is a line of the result: one contender.

    Attributes:
        model: the fine-tuned PyTorch folder that all rows run or are exported from.
        corpus: single texts; rounds take disjoint parts of it.
        rows: names out of `CONTENDERS`; None for all, `monoxkit-guard` where there is a guard.
        rounds: each row scores a slice in every round.
        rows_per_round: texts of a round.
        slices: fewer texts of every round, evenly spread over it, by the name of a slow row.
        max_length: the cut in tokens; None for the model's own.
        bundle: the ONNX bundle of our rows; None for an fp32 one that is exported.
        bundles: other bundles, by row; `monoxkit-fp32` takes an exported one unless named here.
        graph: the fp32 ONNX graph of the OpenVINO rows; None for PyTorch's own export.
        guard: of `monoxkit-guard`: the agreement asked for.
        interpreters: Pythons that have what a row needs, by row; the others run under this one.
        warmup_rows: texts to warm up and to choose batch sizes and streams on.
        calibration_rows: texts to quantize with; they and the former are in no round.
        batch_sizes: rows per batch that the sorted rows choose from.
        threads: None for the cores that the process may use.
        start_limit_s: seconds in which a row must load, choose and warm up.
        round_limit_s: seconds after which a round ends with what it has.
        limit_budget_s: seconds for each matrix product of the machine's limits, each round.
    """

    model: str
    corpus: CorpusConfig
    rows: tuple[str, ...] | None = None
    rounds: int = 3
    rows_per_round: int = 2000
    slices: Mapping[str, int] = field(default_factory=dict)
    max_length: int | None = None
    bundle: str | None = None
    bundles: Mapping[str, str] = field(default_factory=dict)
    graph: str | None = None
    guard: float | None = None
    interpreters: Mapping[str, str] = field(default_factory=dict)
    warmup_rows: int = 24
    calibration_rows: int = 128
    batch_sizes: tuple[int, ...] = (8, 16, 32)
    threads: int | None = None
    start_limit_s: float = 1800.0
    round_limit_s: float = 900.0
    limit_budget_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The inputs of a run.

    Attributes:
        config: what was asked for.
        folder: the model.
        max_length: the cut in tokens.
        rows: the names to run, the reference first.
        rounds: the texts of each round; every round has as many.
        bundles: the ONNX bundle of each of our rows.
        graph: the fp32 ONNX graph; None where no row needs one.
        work: where what is made once is kept.
        scratch: the folder of this run, removed at its end.
    """

    config: LabelBenchmarkConfig
    folder: ModelFolder
    max_length: int
    rows: tuple[str, ...]
    rounds: Sequence[Sequence[str]]
    bundles: Mapping[str, str]
    graph: str | None
    work: Path
    scratch: Path

    def slice_of(self, row: str) -> list[int]:
        """The positions of a row's texts in each round: all, or fewer at equal distances."""
        count = self.config.rows_per_round
        wanted = min(self.config.slices.get(row, count), count)
        return [position * count // wanted for position in range(wanted)]

    def job(self, row: str, *, prepare: bool = False) -> Job:
        """What the row's process is started with."""
        kept = self.kept(row)
        return Job(
            row=row,
            model=str(self.folder.path),
            max_length=self.max_length,
            threads=self.config.threads or num_threads(),
            warmup_path=str(self.scratch / "warmup.jsonl"),
            batch_sizes=self.config.batch_sizes,
            graph=self.graph,
            bundle=self.bundles.get(row),
            provider="openvino" if row == OPENVINO_ROW else "cpu",
            guard=self.config.guard if row == GUARD_ROW else None,
            calibration_path=str(self.scratch / "calibration.jsonl"),
            kept=None if kept is None else str(kept),
            prepare=prepare,
        )

    def kept(self, row: str) -> Path | None:
        """The folder of what the row makes once, named after what it is made from.

        None for a row that makes nothing.
        """
        if ROWS[row].prepare is None:
            return None
        sources = [self.folder.model_digest, str(self.max_length)]
        if self.graph is not None:
            sources.append(digest_file(Path(self.graph)))
        sources.append(digest_file(self.scratch / "calibration.jsonl"))
        return self.work / f"{row}-{digest_bytes(json.dumps(sources).encode())[:12]}"

    def round_path(self, number: int, row: str) -> Path:
        """The JSON Lines file of a row's texts of a round, written when first asked for."""
        positions = self.slice_of(row)
        path = self.scratch / f"round-{number}-{len(positions)}.jsonl"
        if not path.exists():
            write_texts(path, [self.rounds[number][position] for position in positions])
        return path


def make_plan(config: LabelBenchmarkConfig, work: Path, progress: Progress) -> Plan:
    """Read the texts, export what is missing, and write the files that all rows read.

    Raises:
        ConfigError: there is no file at `graph`.
        CorpusError: pairs, or too few texts.
        ModelError: the model cannot be used or exported.
    """
    rows = _rows(config)
    folder = open_folder(config.model, progress)
    folder.require_backend("torch")
    folder.require_classifier()
    max_length = folder.resolve_max_length(config.max_length)
    texts = _read(config)
    # Every round takes every n-th text, so that a sorted corpus gives equal rounds.
    timed = texts[: config.rounds * config.rows_per_round]
    scratch = work / "scratch"
    remove_folder(scratch)  # of a run that was killed
    extra = texts[len(timed) :]
    write_texts(scratch / "warmup.jsonl", extra[: config.warmup_rows])
    write_texts(scratch / "calibration.jsonl", extra[config.warmup_rows :])
    bundles, graph = _bundles(
        config, rows, folder, max_length=max_length, work=work, progress=progress
    )
    return Plan(
        config=config,
        folder=folder,
        max_length=max_length,
        rows=rows,
        rounds=[timed[number :: config.rounds] for number in range(config.rounds)],
        bundles=bundles,
        graph=graph,
        work=work,
        scratch=scratch,
    )


def write_texts(path: Path, texts: Sequence[str]) -> None:
    """Write the texts as JSON Lines that every row reads."""
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    write_file(path, lines.encode())


def _rows(config: LabelBenchmarkConfig) -> tuple[str, ...]:
    """The rows to run, the reference first; without a guard there is no row of it."""
    possible = [name for name in CONTENDERS if config.guard is not None or name != GUARD_ROW]
    return (REFERENCE, *dict.fromkeys(config.rows or possible))


def _read(config: LabelBenchmarkConfig) -> list[str]:
    """The texts of all rounds, of the warm-up and of the calibration, in the corpus's order."""
    timed = config.rounds * config.rows_per_round
    wanted = timed + config.warmup_rows + config.calibration_rows
    corpus = Corpus(config.corpus)
    documents: list[Document] = list(islice(corpus.documents(), wanted))
    where = ", ".join(corpus.files)
    if len(documents) < wanted:
        raise CorpusError(
            f"{where}: expected {wanted} texts ({config.rounds} rounds of {config.rows_per_round}, "
            f"{config.warmup_rows} to warm up, {config.calibration_rows} to calibrate), found "
            f"{len(documents)}. Give more text or a smaller --rows-per-round."
        )
    if documents[0].text_pair is not None:
        raise CorpusError(
            f"{where}: expected single texts, found text pairs. The rows are compared on single "
            "texts; give another corpus."
        )
    return [document.text for document in documents]


def _bundles(
    config: LabelBenchmarkConfig,
    rows: Sequence[str],
    folder: ModelFolder,
    *,
    max_length: int,
    work: Path,
    progress: Progress,
) -> tuple[dict[str, str], str | None]:
    """The bundle of each of our rows, and the OpenVINO rows' graph; both are made if needed."""
    if config.graph is not None and not Path(config.graph).is_file():
        raise ConfigError(
            f"--graph: expected an ONNX file, found no file at {config.graph}. Correct it."
        )
    ours = [name for name in rows if name.startswith(OURS)]
    given = {name: config.bundle for name in ours if name != FP32_ROW and config.bundle}
    bundles: dict[str, str] = {**given, **config.bundles}
    key = digest_bytes(f"{folder.model_digest} {max_length}".encode())[:12]
    if any(name not in bundles for name in ours):
        exported = work / f"fp32-{GRAPHS_VERSION}-{key}"
        export_model(
            ExportConfig(model=config.model, max_length=max_length), exported, progress=progress
        )
        bundles = {**dict.fromkeys(ours, str(exported)), **bundles}
    graph = config.graph
    if not any(name.startswith("openvino") for name in rows):
        graph = None
    elif graph is None:
        graph = str(_plain_graph(folder, max_length, work / f"graph-{key}") / ONNX_FILE)
    return {name: bundles[name] for name in ours}, graph


def _plain_graph(folder: ModelFolder, max_length: int, out: Path) -> Path:
    """A folder with the graph as PyTorch exports it, without what our export makes of it."""
    if is_free(out):
        token_types = Tokenizer(folder.path, max_length).has_token_types
        with new_folder(out) as building:
            model = load_classifier(folder).model
            write_form(model, building, FORMS[DEFAULT_FORM], token_types=token_types)
    return out
