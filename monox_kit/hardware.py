"""The machine that this process runs on and what is installed there: where numbers come from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from monox_kit import __version__
from monox_kit.results import Result

# What decides which int8 and bfloat16 kernels a runtime can use, as Linux names the flags.
CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)
# What models are made and run with.
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "openvino",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware(Result):
    """What the machine offers this process.

    Attributes:
        cpu_model: the processor's name as the system gives it.
        cpu_features: those of `CPU_FEATURES` that the processor has.
        num_cores: cores that this process may use: its affinity, under the container's quota.
        memory_bytes: memory that this process may use: the machine's, under the container's limit;
            None where the system does not say.
    """

    cpu_model: str
    cpu_features: tuple[str, ...]
    num_cores: float
    memory_bytes: int | None


def read_hardware(root: Path = Path("/")) -> Hardware:
    """What the machine offers this process, read from the system's files under `root`."""
    cpuinfo = _read(root / "proc/cpuinfo")
    flags = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split())
    num_cores: float = len(os.sched_getaffinity(0))
    quota = _cpu_quota(root)
    return Hardware(
        cpu_model=_field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        cpu_features=tuple(feature for feature in CPU_FEATURES if feature in flags),
        num_cores=num_cores if quota is None else min(num_cores, quota),
        memory_bytes=_memory_bytes(root),
    )


def _cpu_quota(root: Path) -> float | None:
    """The smallest number of cores that a control group of this process grants; None: no limit.

    Source: the kernel's documentation of `cpu.max` (version 2) and `cpu.cfs_quota_us` (version 1).
    """
    quotas = []
    for folder in _cgroup_folders(root, "cpu"):
        fields = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us").strip(),
            _read(folder / "cpu.cfs_period_us").strip(),
        ]
        if len(fields) == 2 and fields[0].isdigit() and fields[1].isdigit() and int(fields[1]) > 0:
            quotas.append(int(fields[0]) / int(fields[1]))
    return min(quotas, default=None)


def _memory_bytes(root: Path) -> int | None:
    """The machine's memory, or the smallest limit of a control group where that is less."""
    limits = []
    total = (_field(_read(root / "proc/meminfo"), "MemTotal") or "").split()
    if total and total[0].isdigit():
        limits.append(int(total[0]) * 1024)
    for folder in _cgroup_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(folder / name).strip()
            if text.isdigit():
                limits.append(int(text))
    return min(limits, default=None)


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """The folders of this process's control groups for `controller`, from the leaf to the top."""
    folders = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 has one hierarchy and no controllers in its line.
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        # Inside a container the path is often the host's, and only the top exists.
        leaf = top / path.lstrip("/")
        folders += [folder for folder in (leaf, *leaf.parents) if folder.is_relative_to(top)]
    return folders


def _field(text: str, name: str) -> str | None:
    """The value of the first `name : value` line; None where there is none."""
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator and key.strip() == name:
            return value.strip()
    return None


def _read(path: Path) -> str:
    """The file's text; empty where it cannot be read, which these files may always be."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def num_threads() -> int:
    """Threads that fill this process's cores; at least 1."""
    return max(1, int(read_hardware().num_cores))


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware: elsewhere it is emulated, or left aside."""
    return bool({"avx512_bf16", "amx_bf16"} & set(read_hardware().cpu_features))


def has_vnni() -> bool:
    """Whether the CPU adds int8 products in 32 bits, so that weights may use their full range."""
    return bool({"avx512_vnni", "avx_vnni"} & set(read_hardware().cpu_features))


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Those of Python, of monoxkit and of the packages that this environment has."""
    found = {"python": platform.python_version(), "monoxkit": __version__}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
