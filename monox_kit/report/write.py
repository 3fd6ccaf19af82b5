"""The report's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monox_kit.durable import write_file, write_json
from monox_kit.report.content import sections
from monox_kit.report.markdown import markdown
from monox_kit.report.page import page
from monox_kit.report.plots import draw_plots

if TYPE_CHECKING:
    from monox_kit.demo import DemoReport

TITLE = "monoxkit demo: an English classifier made multilingual"


def write_report(report: DemoReport, out: Path) -> list[Path]:
    """Write `report.md`, `report.html` and `report.json` into `out`; equal reports, equal bytes.

    Returns:
        The paths of the three files, in that order.

    Raises:
        ConfigError: a folder stands at one of the paths, or a file at `out`.
        StorageError: the disk refused.
    """
    content = sections(report)
    paths = [out / f"report.{suffix}" for suffix in ("md", "html", "json")]
    write_file(paths[0], markdown(TITLE, content).encode())
    write_file(paths[1], page(TITLE, content, draw_plots(report)).encode())
    write_json(paths[2], report.to_json())
    return paths
