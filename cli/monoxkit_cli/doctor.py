"""`monoxkit doctor`: what is installed, what is missing and how to install it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monoxkit_cli.derive import Command

if TYPE_CHECKING:
    from rich.table import Table

    from monox_kit.doctor import DoctorReport


def _require_usable(report: DoctorReport) -> None:
    from monox_kit.errors import ModelError

    if not report.usable:
        problems = sum(finding.severity == "problem" for finding in report.findings)
        raise ModelError(
            f"doctor: expected everything needed to be installed, found {problems} problem(s). "
            "Run the commands that the report lists."
        )


def _tables(report: DoctorReport) -> list[Table]:
    """The machine, and the packages."""
    from rich.table import Table

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


def _advice(report: DoctorReport) -> str:
    """What is missing, one line each, and the command below it."""
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

    That is: versions, processor features, memory, execution providers, packaged weights. Exits
    with 5 where something needed is missing.

    Example: monoxkit doctor --json
    """,
    show=_tables,
    notes=_advice,
    check=_require_usable,
)
