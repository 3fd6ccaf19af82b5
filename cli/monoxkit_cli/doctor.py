"""`monoxkit doctor`: what is installed, what is missing and how to install it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.doctor import DoctorReport
    from monox_kit.models.self_test import SelfTest


def _require_usable(report: DoctorReport) -> None:
    from monox_kit.errors import ModelError

    if not report.usable:
        problems = sum(finding.severity == "problem" for finding in report.findings)
        raise ModelError(
            f"doctor: expected everything needed to be installed, found {problems} problem(s). "
            "Run the commands that the report lists."
        )
    if report.self_test is not None and report.self_test.verdict == "failed":
        report.self_test.require_passed()


def _tables(report: DoctorReport) -> list[Table]:
    """The machine, and the packages; of a bundle, what its self test found different."""
    from rich.table import Table

    if report.self_test is not None:
        return [_self_test(report.self_test)] if report.self_test.differences else []
    hardware = report.hardware
    memory = "unknown"
    if hardware.memory_bytes is not None:
        memory = f"{hardware.memory_bytes / 2**30:.1f} GiB"
    machine = Table("what", "found", title="Machine")
    for what, found in (
        ("monoxkit", report.monoxkit),
        ("Python", f"{report.python}, {report.platform}"),
        ("processor", hardware.cpu_model),
        ("processor features", ", ".join(hardware.cpu_features) or "none that matter"),
        ("usable cores", f"{hardware.num_cores:g}"),
        ("usable memory", memory),
        ("CUDA devices", ", ".join(report.cuda_devices) or "none"),
        ("onnxruntime", ", ".join(report.onnxruntime_flavours) or "none"),
        ("execution providers", ", ".join(report.execution_providers) or "none"),
        ("OpenVINO", report.openvino or "none"),
        ("packaged weights", ", ".join(report.packaged_weights) or "none"),
        ("apt-get", report.apt_get or "none"),
    ):
        machine.add_row(what, found)
    packages = Table("package", "for", "wanted", "installed", title="Packages")
    for component in report.components:
        installed = component.version or "-"
        packages.add_row(
            component.name,
            component.extra or "core",
            component.wanted or "any",
            installed if component.fits in {True, None} else f"{installed} (does not fit)",
        )
    return [machine, packages]


def _self_test(found: SelfTest) -> Table:
    """The golden texts that a bundle answers otherwise than it was recorded."""
    from rich.table import Table

    table = Table("text", "class", "recorded", "found", title=f"Self test: {found.verdict}")
    for one in found.differences:
        table.add_row(one.text, one.label or "token ids", str(one.recorded), str(one.found))
    return table


def _advice(report: DoctorReport) -> str:
    """What is missing with the command that adds it; of a bundle, what its self test found."""
    if report.self_test is not None:
        return report.self_test.sentence if report.self_test.verdict != "failed" else ""
    if not report.findings:
        return "Nothing is missing."
    lines = []
    for finding in report.findings:
        lines.append(f"{finding.severity}: {finding.message}")
        if finding.command is not None:
            lines.append(f"    {finding.command}")
    return "\n".join(lines)


COMMAND = Command(
    name="doctor",
    stage="doctor",
    help="""Show what is installed, what is missing and how to add it.

    That is: versions, processor features, memory, execution providers, OpenVINO, packaged weights.
    Exits with 5 where something needed is missing.

    With a bundle, run its self test instead of showing that: its files must have the digests, and
    golden texts the ids and the logits, that were recorded when it was exported. Int8 is computed
    otherwise by processors without VNNI. Exits with 5 where it fails; a bundle of monoxkit 0.1.0
    has nothing to compare with.

    Example: monoxkit doctor runs/student-onnx
    """,
    show=_tables,
    notes=_advice,
    check=_require_usable,
)
