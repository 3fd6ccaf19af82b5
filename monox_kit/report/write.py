"""The report's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monox_kit.durable import write_file, write_json
from monox_kit.foreign import publishable, stored_name
from monox_kit.report.blocks import Section
from monox_kit.report.content import sections
from monox_kit.report.markdown import markdown
from monox_kit.report.page import page
from monox_kit.report.plots import draw_plots

if TYPE_CHECKING:
    from monox_kit.demo.result import DemoReport

TITLE = "monoxkit demo: an English classifier made multilingual"


def write_report(report: DemoReport, out: Path) -> list[Path]:
    """Write `report.md`, `report.html` and `report.json` into `out`; equal reports, equal bytes.

    Returns:
        The paths of the three files, in that order.

    Raises:
        ConfigError: a folder stands at one of the paths, or a file at `out`.
        StorageError: the disk refused.
    """
    report = published(report)
    return write_pages(TITLE, sections(report), draw_plots(report), report.to_json(), out)


def write_pages(
    title: str,
    content: Sequence[Section],
    plots: Mapping[str, str],
    values: Mapping[str, Any],
    out: Path,
    *,
    name: str = "report",
    images: Mapping[str, str] = {},
) -> list[Path]:
    """Write a page as Markdown and HTML, and what it was made of as JSON.

    Args:
        title: of the page.
        content: what it says.
        plots: by name, as `page` takes them.
        values: plain JSON values.
        out: folder to write to.
        name: of the three files.
        images: by the name of a plot, its file in `out`, for the Markdown page.

    Returns:
        Their paths: `.md`, `.html`, `.json`.
    """
    paths = [out / f"{name}.{suffix}" for suffix in ("md", "html", "json")]
    write_file(paths[0], markdown(title, content, images).encode())
    write_file(paths[1], page(title, content, plots).encode())
    write_json(paths[2], values)
    return paths


def published(report: DemoReport) -> DemoReport:
    """The report with names in the place of absolute paths: it is made to be handed on."""
    exports = {
        name: {**export, "candidates": publishable(export.get("candidates", {}))}
        for name, export in report.exports.items()
    }
    return replace(
        report,
        out=stored_name(report.out),
        settings=_named(report.settings, "data", "teacher_model", "student_model"),
        corpus=_named(report.corpus, "folder"),
        evaluations={key: _named(value, "model") for key, value in report.evaluations.items()},
        training={key: _named(value, "path") for key, value in report.training.items()},
        labelling=_named(report.labelling, "store"),
        exports={key: _named(value, "path") for key, value in exports.items()},
    )


def _named(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {
        key: stored_name(value) if key in keys and isinstance(value, str) else value
        for key, value in values.items()
    }
