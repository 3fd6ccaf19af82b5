"""What the demo measured, for people: tables for the terminal, a Markdown page, an HTML page."""

from monox_kit.report.rows import accuracy_rows, fact_rows
from monox_kit.report.write import write_report

__all__ = ["accuracy_rows", "fact_rows", "write_report"]
