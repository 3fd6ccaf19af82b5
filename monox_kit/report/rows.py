"""The report's two main tables as rows of text, header first where there is one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from monox_kit.report.scores import Comparison, Scores

if TYPE_CHECKING:
    from monox_kit.demo.result import DemoReport

ABSENT = "-"
STUDENTS = ("ce", "pl", "kd")


def accuracy_rows(scores: Scores) -> list[list[str]]:
    """Accuracy in percent by language and system, the header first.

    Below the languages stand the average over the target languages, each system's difference to
    the baseline in points with its paired interval, and the number of target languages in which it
    is above the baseline.
    """
    names = list(scores.systems)
    rows = [["language", "rows", *(one.title for one in scores.systems.values())]]
    for language in scores.languages:
        cells = (scores.in_language(name, language) for name in names)
        rows.append([language, f"{scores.rows[language]:,}", *map(cell_of, cells)])
    if not scores.targets:
        return rows
    total = sum(scores.rows[tag] for tag in scores.targets)
    rows.append(
        ["target average", f"{total:,}", *(cell_of(scores.average(name)) for name in names)]
    )
    compared = [scores.against_baseline(name) for name in names]
    if any(compared):
        base = scores.baseline
        rows.append([f"minus {base}", ABSENT, *map(_difference, compared)])
        rows.append([f"languages above {base}", ABSENT, *map(_languages_above, compared)])
    return rows


def fact_rows(report: DemoReport) -> list[list[str]]:
    """What the run did and cost: rows of two cells, what and measured; no header."""
    rows = [["text", _text(report)]]
    scores = report.scores
    for name in STUDENTS:
        compared = None if name not in scores.systems else scores.against_baseline(name)
        if compared is not None:
            rows.append([f"{name} against ce", verdict(compared)])
    rows += [
        ["labelling", _labelling(report.labelling)],
        ["labelling, side by side", _race(report.labelling_race)],
        ["exported student", _exported(report)],
        ["exported against PyTorch", _agreement(report.agreement)],
        ["inference", _inference(report)],
        ["weights on disk", _sizes(report.sizes_bytes)],
        ["training", _training(report)],
        ["all stages", f"{duration(sum(report.stage_s.values()))} in {len(report.stage_s)} stages"],
        ["hardware", hardware(report.environment)],
    ]
    return rows


def verdict(compared: Comparison) -> str:
    """The difference to the baseline in words that claim no more than the intervals show."""
    noise = (
        "the interval holds 0, so this may be noise of the test rows"
        if compared.difference.holds_0
        else "noise of the test rows alone hardly explains it"
    )
    return (
        f"{compared.difference.signed} points on the target average ({compared.system.value:.1f} % "
        f"instead of {compared.baseline.value:.1f} %), above it in {compared.num_above} and below "
        f"it in {compared.num_below} of {compared.num_languages} languages; {noise}"
    )


def race_names(race: Mapping[str, Any]) -> tuple[str, str]:
    """The names of a race's reference and of its ONNX graph, such as `torch fp32`, `onnx int8`."""
    names = list(race["rows_per_s"])
    graph = next(name for name in names if name.startswith("onnx"))
    return next(name for name in names if name != graph), graph


def ms_per_row(race: Mapping[str, Any], name: str) -> float:
    """Milliseconds that one text took in batches, tokenizing included."""
    return 1000 / float(race["rows_per_s"][name])


def speedup(race: Mapping[str, Any]) -> float:
    """Rows per second of the ONNX graph over those of the reference."""
    reference, graph = race_names(race)
    return float(race["rows_per_s"][graph] / race["rows_per_s"][reference])


def duration(seconds: float) -> str:
    """Such as `41 s`, `12 min 03 s` or `1 h 02 min 03 s`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute:02} min {second:02} s"
    return f"{minute} min {second:02} s" if minute else f"{second} s"


def hardware(environment: Mapping[str, Any]) -> str:
    """Processor, cores, memory and the CPU features that number formats depend on."""
    found = environment["hardware"]
    parts = [str(found["cpu_model"]), f"{found['num_cores']:g} cores"]
    if found["memory_bytes"] is not None:
        parts.append(f"{found['memory_bytes'] / 2**30:.1f} GiB of memory")
    parts.append(" ".join(found["cpu_features"]) or "none of the CPU features looked for")
    return ", ".join(parts)


def rate(rows_per_s: float) -> str:
    """Rows per second with three digits that mean something."""
    digits = 0 if rows_per_s >= 100 else 1 if rows_per_s >= 10 else 2
    return f"{rows_per_s:,.{digits}f}"


def cell_of(value: object | None) -> str:
    """A table's cell: the value as text, or what stands for none."""
    return ABSENT if value is None else str(value)


def _difference(compared: Comparison | None) -> str:
    return ABSENT if compared is None else compared.difference.signed


def _languages_above(compared: Comparison | None) -> str:
    return ABSENT if compared is None else f"{compared.num_above} of {compared.num_languages}"


def _text(report: DemoReport) -> str:
    rows, scores = report.corpus["rows"], report.scores
    source = scores.source_language
    targets = [scores.rows[tag] for tag in scores.targets]
    tests = []
    if source in scores.rows:
        tests.append(f"of {scores.rows[source]:,} rows in {source}")
    if targets:
        least, most = min(targets), max(targets)
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        plural = "language" if len(targets) == 1 else "languages"
        tests.append(f"of {each} rows in each of {len(targets)} target {plural}")
    return (
        f"{rows['labelled.jsonl']:,} labelled and {rows['unlabelled.jsonl']:,} unlabelled rows, "
        f"{rows['dev.jsonl']:,} for dev; tests {' and '.join(tests)}"
    )


def _labelling(summary: Mapping[str, Any]) -> str:
    if summary["rows_per_s"] is None:
        return f"{summary['num_rows']:,} rows, all labelled by an earlier run: not timed"
    resumed = summary["num_resumed_rows"]
    earlier = f" ({resumed:,} of them by an earlier run, not timed)" if resumed else ""
    return (
        f"{summary['num_rows']:,} rows{earlier}, {rate(summary['rows_per_s'])} rows per second, "
        f"{100 * summary['padding_fraction']:.1f} % of the tokens padding"
    )


def _race(race: Mapping[str, Any]) -> str:
    reference, graph = race_names(race)
    speeds = ", ".join(
        f"{name} {rate(race['rows_per_s'][name])} rows per second" for name in (reference, graph)
    )
    return f"{speeds}: {speedup(race):.2f} times as fast, on {race['num_rows']:,} texts"


def _exported(report: DemoReport) -> str:
    export = report.exports["student"]
    dev = ", ".join(
        f"{name} {100 * report.training[name]['dev_accuracy']:.1f} %" for name in STUDENTS
    )
    left = [
        f"{name} not kept: {candidate['rejected']}"
        for name, candidate in export["candidates"].items()
        if candidate["rejected"] is not None
    ]
    ranked = f"{report.best} ranks first on the English dev text (accuracy, then loss): {dev}"
    kept = f"{report.best} in {export['precision']}, without the tokens that no text here uses"
    gate = f"the gate by language: {export['gate']['verdict']}" if export["gate"] else ""
    return "; ".join(filter(None, [kept, gate, ranked, *left]))


def _agreement(found: Mapping[str, Any]) -> str:
    return (
        f"same label on {100 * found['argmax']:.1f} % of {found['num_texts']:,} test texts, "
        f"largest logit difference {found['max_delta']:.2g}, mean KL {found['mean_kl']:.2g} nats"
    )


def _inference(report: DemoReport) -> str:
    races = list(report.inference_races.values())
    if not races:
        return "not timed"
    names = race_names(races[0])
    reference, graph = (
        statistics.median(ms_per_row(race, name) for race in races) for name in names
    )
    ratios = [speedup(race) for race in races]
    return (
        f"{names[0]} {reference:.2f} ms per row, {names[1]} {graph:.2f} ms (medians over "
        f"{len(races)} languages): {statistics.median(ratios):.2f} times as fast, "
        f"{min(ratios):.2f} to {max(ratios):.2f} by language"
    )


def _sizes(sizes_bytes: Mapping[str, int]) -> str:
    return "; ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes_bytes.items())


def _training(report: DemoReport) -> str:
    times = []
    for name, summary in report.training.items():
        # A model that an earlier process finished records no time of its own.
        time = "by an earlier run, not timed" if summary["reused"] else None
        times.append(f"{name} {time or duration(summary['trained_s'])}")
    return ", ".join(times)
