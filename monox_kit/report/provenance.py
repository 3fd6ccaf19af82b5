"""What the report's numbers hold for: texts, settings, stages, machine and versions."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from monox_kit.report.blocks import Block, Command, Paragraph, Section, Table
from monox_kit.report.rows import duration, hardware

if TYPE_CHECKING:
    from monox_kit.demo.result import DemoReport

# They shape Debian's corpus only; a corpus of the user's own has its own sizes.
_DEBIAN_SETTINGS = ("labelled", "unlabelled", "dev", "test_rows", "languages")


def texts(report: DemoReport) -> Section:
    """Rows by file, and what is not known of them."""
    corpus = report.corpus
    rows = [["file", "rows"]]
    rows += [[name, f"{count:,}"] for name, count in sorted(corpus["rows"].items())]
    blocks: list[Block] = [Table(rows, "Rows by file.", numeric=True)]
    if corpus.get("left_out"):
        left = ", ".join(f"{count:,} {reason}" for reason, count in corpus["left_out"].items())
        blocks.append(Paragraph(f"Left out: {left}."))
    blocks.append(
        Paragraph("The run does not record licences of texts and models; see their sources.")
    )
    return Section("Texts", blocks)


def reproduction(report: DemoReport) -> Section:
    """Every setting, and the command that gives them."""
    return Section(
        "Settings and how to reproduce them",
        [
            Paragraph(
                "This command runs with the same settings. Numbers can still differ with other "
                "versions, another processor, or a newer release of the texts."
            ),
            Command(command_line(report)),
            Table([["setting", "value"], *_settings(report)], "Settings."),
        ],
    )


def command_line(report: DemoReport) -> str:
    """The `monoxkit demo` that gives the report's settings, every one of them spelled out."""
    options = [("out", report.out)]
    for name, value in _used_settings(report):
        options.append((name.replace("_", "-"), _option(value)))
    return " \\\n  ".join(
        ["monoxkit demo", *(f"--{name} {shlex.quote(value)}" for name, value in options)]
    )


def _used_settings(report: DemoReport) -> Iterator[tuple[str, Any]]:
    for name, value in report.settings.items():
        ignored = name == "data" if is_debian(report) else name in _DEBIAN_SETTINGS
        if value is not None and not ignored:
            yield name, value


def _settings(report: DemoReport) -> list[list[str]]:
    return [[name, _option(value)] for name, value in _used_settings(report)]


def _option(value: Any) -> str:
    return ",".join(value) if isinstance(value, list | tuple) else str(value)


def is_debian(report: DemoReport) -> bool:
    """Whether the demo prepared the texts itself; only Debian's corpus records a release."""
    return "release" in report.corpus


def stage_times(report: DemoReport) -> Section:
    """Seconds by stage and in all."""
    total = sum(report.stage_s.values())
    rows = [["stage", "s"], *([name, f"{s:.1f}"] for name, s in report.stage_s.items())]
    rows.append([f"all ({duration(total)})", f"{total:.1f}"])
    note = (
        "As each stage was last run: what a stage had finished before an interruption is not "
        "counted, and a stage reused from an earlier run shows its time then."
    )
    table = Table(rows, "Seconds by stage.", numeric=True, num_summary_rows=1)
    return Section("Time of each stage", [table, Paragraph(note)])


def environment(report: DemoReport) -> Section:
    """The hardware and the versions that the numbers hold for."""
    versions = ((name, value) for name, value in report.environment.items() if name != "hardware")
    rows = [["what", "version"], ["hardware", hardware(report.environment)]]
    rows += [[name, str(value)] for name, value in versions]
    return Section("Hardware and versions", [Table(rows, "Where it ran.")])
