"""A student in production: PyTorch, its int8 bundles whole and trimmed, and OpenVINO beside them.

In every language of the test files: accuracy, agreement with PyTorch in float32, KL divergence,
size, latency, texts a second. What is built is kept in --work, so that a second run only measures.
"""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import harness
from monox_kit.benchmarking.config import BenchmarkConfig
from monox_kit.benchmarking.contenders import Contender, contenders_of
from monox_kit.benchmarking.report import BenchmarkReport, ContenderReport, Figures
from monox_kit.benchmarking.run import measure
from monox_kit.corpora.corpus import CorpusConfig
from monox_kit.exporting import ExportConfig, export_model
from monox_kit.progress import Silent
from monox_kit.trimming.config import TrimConfig
from monox_kit.trimming.run import trim

_ALONE = Path(__file__).parent / "contenders" / "openvino_alone.py"
_SIZES = (1, 32)


class Noted(Silent):
    """Progress as lines on stderr."""

    def note(self, message: str) -> None:
        """Say one line."""
        harness.note(message)


def main() -> None:
    """Build what is not there, measure all of it side by side, write JSON, a table and a plot."""
    parser = harness.parser(__file__, __doc__, rounds=5)
    parser.add_argument("--student", required=True, help="a PyTorch folder")
    parser.add_argument("--test", nargs="+", required=True, help="files of each language")
    parser.add_argument("--corpus", nargs="+", required=True, help="texts to trim and calibrate on")
    parser.add_argument("--work", type=Path, required=True, help="folder for the bundles, kept")
    parser.add_argument("--precision", default="int8-smooth", help="of the bundles")
    parser.add_argument("--openvino-precision", default="int8-static", help="of OpenVINO's graph")
    parser.add_argument("--min-agreement", type=float, default=0.95, help="of an export")
    parser.add_argument("--max-length", type=harness.positive, default=128)
    parser.add_argument("--rows", type=harness.positive, default=150, help="of each language")
    parser.add_argument("--seconds", type=float, default=150, help="most for each contender")
    parser.add_argument("--starts", type=harness.positive, default=3)
    arguments = parser.parse_args()
    folders, alone = _built(arguments)
    config = BenchmarkConfig(
        models=tuple(map(str, folders)),
        test=CorpusConfig(paths=tuple(arguments.test)),
        rows=arguments.rows,
        seconds=arguments.seconds,
        batches=_SIZES,
        rounds=arguments.rounds,
        starts=arguments.starts,
        precisions=("fp32",),
        max_length=arguments.max_length,
        plot=arguments.out.with_suffix(".png") if arguments.plot else None,
    )
    progress = Noted()
    contenders = contenders_of(config, progress)
    if alone is not None:
        contenders.append(_alone(config, alone))
    report = measure(config, contenders, progress=progress)
    table = arguments.out.with_suffix(".md")
    table.write_text("\n".join([*_whole(report), "", *_by_language(report), ""]), encoding="utf-8")
    result = {"max_length": arguments.max_length, **_without_places(report)}
    harness.publish(arguments, result, hidden=("contenders",))
    harness.note(table.read_text(encoding="utf-8"))


def _built(arguments: Namespace) -> tuple[list[Path], Path | None]:
    """The student, its bundle and its trimmed bundle; and the bundle for OpenVINO's own API."""
    work, corpus = arguments.work, CorpusConfig(paths=tuple(arguments.corpus))
    student, small = Path(arguments.student), work / "trimmed"
    cut = arguments.max_length
    harness.note("trimming")
    trim(TrimConfig(model=str(student), corpus=corpus, max_length=cut), small)

    def exported(model: Path, precision: str, name: str) -> Path:
        harness.note(f"exporting {name}")
        export = ExportConfig(
            model=str(model),
            precision=precision,
            max_length=cut,
            check=corpus,
            min_agreement=arguments.min_agreement,
            keep_fp32=False,
        )
        export_model(export, work / name, progress=Noted())
        return Path(work / name)

    folders = [
        student,
        exported(student, arguments.precision, f"whole-{arguments.precision}"),
        exported(small, arguments.precision, f"trimmed-{arguments.precision}"),
    ]
    if importlib.util.find_spec("openvino") is None:
        harness.note("openvino is not installed: its own API is left out")
        return folders, None
    precision = arguments.openvino_precision
    return folders, exported(student, precision, f"whole-{precision}")


def _alone(config: BenchmarkConfig, bundle: Path) -> Contender:
    """OpenVINO's own API on a bundle's graph."""
    own = replace(config, models=(str(bundle),), providers=("cpu",), plot=None)
    (one,) = contenders_of(own, Silent())
    return replace(
        one, name=f"{bundle.name} OpenVINO's own API", command=(sys.executable, str(_ALONE))
    )


def _without_places(report: BenchmarkReport) -> dict[str, object]:
    """The report without the paths of this machine."""
    value = report.to_json()
    contenders = [{**one, "model": Path(one["model"]).name} for one in value["contenders"]]
    value["settings"].pop("test")
    return {**value, "contenders": contenders}


def _whole(report: BenchmarkReport) -> Iterator[str]:
    """A row for each contender, over all texts."""
    yield (
        "| variant | MB | first answer, s | peak MB | accuracy | agreement | KL | p50, ms "
        "| p99, ms | rows/s at 1 | rows/s at 32 | times PyTorch at 1 | at 32 |"
    )
    yield "|---|" + "---|" * 12
    for one in report.contenders:
        speeds = [f"{one.all.timings[size].rows_per_s:.1f}" for size in _SIZES]
        ratios = [f"{one.times_as_fast[size].median:.2f}" for size in _SIZES]
        peak = "" if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.0f}"
        start = f"{one.first_answer.total_s.median:.2f}"
        cells = [f"{one.total_bytes / 1e6:.1f}", start, peak, *_cells(one.all), *speeds, *ratios]
        yield f"| {one.name} | {' | '.join(cells)} |"


def _by_language(report: BenchmarkReport) -> Iterator[str]:
    """A row for each language and contender."""
    yield (
        "| language | variant | tokens/text | accuracy | agreement | KL | p50, ms | p99, ms "
        "| rows/s at 1 | rows/s at 32 |"
    )
    yield "|---|---|" + "---|" * 8
    for tag in report.contenders[0].languages:
        for one in report.contenders:
            yield f"| {tag} | {one.name} | {' | '.join(_language(one, tag))} |"


def _language(one: ContenderReport, tag: str) -> Sequence[str]:
    figures = one.languages[tag]
    speeds = [f"{figures.timings[size].rows_per_s:.1f}" for size in _SIZES]
    return [f"{figures.tokens_per_text:.1f}", *_cells(figures), *speeds]


def _cells(figures: Figures) -> list[str]:
    found, single = figures.fidelity, figures.timings[1]
    return [
        "" if found.accuracy is None else f"{100 * found.accuracy:.1f}",
        "" if found.agreement is None else f"{100 * found.agreement:.2f}",
        "" if found.mean_kl is None else f"{found.mean_kl:.1e}",
        f"{single.p50_ms:.1f}",
        "" if single.p99_ms is None else f"{single.p99_ms:.1f}",
    ]


if __name__ == "__main__":
    main()
