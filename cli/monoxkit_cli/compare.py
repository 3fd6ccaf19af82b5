"""`monoxkit compare`: whether one model is better than another on the same rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command
from monoxkit_cli.evaluate import shown_range

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.evaluation import Comparison


def _table(found: Comparison) -> Table:
    from rich.table import Table

    from monox_kit.problem import MEASURES

    first, second = _short_names(found)
    table = Table(
        "language",
        "rows",
        first,
        second,
        "difference",
        "95 %",
        f"only {first} right",
        f"only {second} right",
        "p",
        title=f"{MEASURES[found.measure]} of {found.second} against {found.first}",
    )
    for language, one in found.languages.items():
        table.add_row(
            language,
            f"{one.num_rows:,}",
            f"{100 * one.first:.1f}",
            f"{100 * one.second:.1f}",
            f"{100 * one.difference:+.1f}",
            shown_range(one.difference_interval),
            f"{one.only_first:,}",
            f"{one.only_second:,}",
            f"{one.p_value:.3g}",
        )
    if found.target_difference is not None and found.target_difference_interval is not None:
        table.add_row(
            "target average",
            "",
            "",
            "",
            f"{100 * found.target_difference:+.1f}",
            shown_range(found.target_difference_interval),
        )
    return table


def _short_names(found: Comparison) -> tuple[str, str]:
    """The last parts of the models' names; what the help page calls them where these are equal."""
    names = [name.rstrip("/").rpartition("/")[2] for name in (found.first, found.second)]
    return ("FIRST", "SECOND") if names[0] == names[1] or not all(names) else (names[0], names[1])


def _notes(found: Comparison) -> str:
    """What the numbers say, in words."""
    least = min(found.languages.items(), key=lambda item: item[1].num_rows)
    rows = max(one.rows_for_3_points for one in found.languages.values())
    enough = (
        f"A difference of 3 points shows on about {rows:,} rows of a language (5 % level, 80 % "
        f"power); {least[0]} has {least[1].num_rows:,}."
    )
    difference, interval = found.target_difference, found.target_difference_interval
    if difference is None or interval is None:
        return enough
    if found.is_shown:
        word = "better" if difference > 0 else "worse"
        said = f"On the target languages, {found.second} is {word} than {found.first}."
    elif interval[0] <= 0 <= interval[1]:
        said = "On the target languages, the difference may be chance: its interval holds 0."
    else:
        said = (
            "On the target languages, the difference may be chance: too few documents differ "
            f"(p = {found.target_p_value:.2g} of a sign test over documents)."
        )
    return f"{said}\n{enough}"


COMMAND = Command(
    name="compare",
    stage="compare",
    help="""Compare two models on the same labelled rows.

    By language: the measure of both models, the difference SECOND - FIRST with its 95 % interval
    (bootstrap, paired by document), the rows that one model alone has right, and the p-value of
    McNemar's exact test.

    Example: monoxkit compare runs/ce runs/kd --test data/test.*.jsonl
    """,
    show=_table,
    notes=_notes,
)
