"""The doctor's judgement on made-up environments, and its report on this one."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from monox_kit import doctor
from monox_kit.doctor import Component, check_components, check_onnxruntime, read_components
from monox_kit.hardware import read_hardware
from monoxkit_cli.app import main

REQUIREMENTS = (
    "torch>=2.10",
    "transformers<6,>=5.10",
    'winonly>=1; sys_platform == "win32"',
    'onnxruntime>=1.24.1; extra == "cpu"',
    'onnxruntime-gpu>=1.24.1; extra == "gpu"',
    'onnxruntime-openvino>=1.24.1; extra == "openvino-ep"',
    'openvino>=2026.4; extra == "openvino"',
    'weights==0.1.0; extra == "demo"',
    'ruff>=0.14; extra == "dev"',
)
EXTRAS = ("cpu", "gpu", "openvino-ep", "openvino", "demo", "dev")


def components(**installed: str) -> tuple[Component, ...]:
    named = {name.replace("_", "-"): version for name, version in installed.items()}
    return read_components(REQUIREMENTS, EXTRAS, named)


def named(name: str, **installed: str) -> Component:
    return next(item for item in components(**installed) if item.name == name)


def test_requirements_are_read_from_metadata_lines() -> None:
    assert [(item.name, item.extra) for item in components()] == [
        ("torch", ""),
        ("transformers", ""),
        ("onnxruntime", "cpu"),
        ("onnxruntime-gpu", "gpu"),
        ("onnxruntime-openvino", "openvino-ep"),
        ("openvino", "openvino"),
        ("weights", "demo"),
        ("ruff", "dev"),
    ]


@pytest.mark.parametrize(
    ("name", "version", "fits"),
    [
        ("torch", "2.13.0+cpu", True),
        ("torch", "2.11.0.dev20260101", True),
        ("torch", "2.9.1", False),
        ("transformers", "4.57.6", False),
        ("transformers", "5.10.0", True),
    ],
)
def test_versions_are_compared_with_the_floors(name: str, version: str, fits: bool) -> None:
    assert named(name, **{name: version}).fits is fits


def findings(**installed: str) -> list[tuple[str, str]]:
    return [
        (item.severity, (item.command or "").rpartition(" -m ")[2])
        for item in check_components(components(**installed))
    ]


def test_a_full_environment_has_no_findings() -> None:
    assert (
        findings(torch="2.13.0", transformers="5.24.0", weights="0.1.0", openvino="2026.4.1") == []
    )


def test_what_is_missing_or_old_comes_with_its_command() -> None:
    assert findings(transformers="4.50.0", ruff="0.1.0") == [
        ("problem", "pip install 'torch>=2.10'"),
        ("problem", "pip install 'transformers<6,>=5.10'"),
        ("optional", "pip install 'ruff>=0.14'"),
        ("optional", "pip install 'openvino>=2026.4'"),
        ("optional", "pip install weights==0.1.0"),
    ]


@pytest.mark.parametrize(
    ("flavours", "has_cuda", "command"),
    [
        (["onnxruntime"], True, None),
        ([], False, "pip install 'onnxruntime>=1.24.1'"),
        ([], True, "pip install 'onnxruntime-gpu>=1.24.1'"),
        (
            ["onnxruntime", "onnxruntime-gpu"],
            True,
            "pip uninstall --yes onnxruntime onnxruntime-gpu "
            "&& pip install 'onnxruntime-gpu>=1.24.1'",
        ),
        (
            ["onnxruntime", "onnxruntime-gpu"],
            False,
            "pip uninstall --yes onnxruntime onnxruntime-gpu && pip install 'onnxruntime>=1.24.1'",
        ),
        (
            ["onnxruntime", "onnxruntime-openvino"],
            False,
            "pip uninstall --yes onnxruntime onnxruntime-openvino "
            "&& pip install 'onnxruntime-openvino>=1.24.1'",
        ),
    ],
)
def test_exactly_one_onnxruntime(
    flavours: list[str], has_cuda: bool, command: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "python")
    found = check_onnxruntime(flavours, components(), has_cuda=has_cuda)
    if command is None:
        assert found == []
    else:
        assert [item.severity for item in found] == ["problem"]
        assert found[0].command == command.replace("pip ", "python -m pip ")


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


CPUINFO = "processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n"


def test_hardware_without_limits(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": CPUINFO, "proc/meminfo": "MemTotal:  2048 kB\nMemFree: 1 kB\n"}
    found = read_hardware(machine(tmp_path, files))
    assert found.cpu_model == "Fast 9000"
    assert found.cpu_features == ("avx2", "avx512_vnni", "amx_int8")
    assert found.num_cores == len(os.sched_getaffinity(0))
    assert found.memory_bytes == 2048 * 1024


@pytest.mark.parametrize(
    "files",
    [
        {  # version 2: the limit stands above the process's own group
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/a/memory.max": "1048576\n",
        },
        {  # version 2 in a container: the path is the host's, only the top exists
            "proc/self/cgroup": "0::/../../docker/123\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/memory.max": "1048576\n",
        },
        {  # version 1
            "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/y\n0::/\n",
            "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/y/memory.limit_in_bytes": "1048576\n",
        },
    ],
)
def test_hardware_under_a_containers_limits(tmp_path: Path, files: dict[str, str]) -> None:
    meminfo = {"proc/meminfo": "MemTotal: 2048 kB\n"}
    found = read_hardware(machine(tmp_path, {**files, **meminfo}))
    assert found.num_cores == 0.5
    assert found.memory_bytes == 1048576


def test_hardware_of_a_machine_that_says_nothing(tmp_path: Path) -> None:
    found = read_hardware(tmp_path)
    assert found.cpu_features == ()
    assert found.memory_bytes is None


def environment(monkeypatch: pytest.MonkeyPatch, findings: list[doctor.Finding]) -> None:
    """Give the doctor known findings; what it reads of this machine stays real."""
    monkeypatch.setattr(doctor, "_components", lambda found: components(torch="2.13.0"))
    monkeypatch.setattr(doctor, "check_components", lambda found: findings)
    monkeypatch.setattr(doctor, "check_onnxruntime", lambda *_, **__: [])


def test_the_command_exits_with_5_and_still_reports(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    problem = doctor.Finding(severity="problem", message="torch: found none.", command="get torch")
    environment(monkeypatch, [problem])
    assert main(["doctor", "--json"]) == 5
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["usable"] is False
    assert report["findings"][0]["command"] == "get torch"
    assert shown.err.startswith("ModelError: doctor: ")
    assert main(["doctor"]) == 5
    assert "problem: torch: found none.\n    get torch\n" in capsys.readouterr().out


def test_the_command_accepts_an_environment_without_extras(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    environment(monkeypatch, [doctor.Finding(severity="optional", message="no weights.")])
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["usable"] is True
    assert report["hardware"]["num_cores"] > 0
    assert report["onnxruntime_flavours"] == ["onnxruntime"]
    assert (report["openvino"] is None) == (importlib.util.find_spec("openvino") is None)
    assert "CPUExecutionProvider" in report["execution_providers"]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_package_that_does_not_load_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    environment(monkeypatch, [])
    monkeypatch.setattr(doctor, "is_installed", lambda module: True)
    monkeypatch.setitem(__import__("sys").modules, name, None)
    report = doctor.diagnose()
    assert not report.usable
    assert report.findings[0].message.startswith(f"{name}: expected a package that loads")


def test_openvino_alone_opens_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own runtime needs no onnxruntime."""
    without, beside = (
        check_onnxruntime([], components(), has_cuda=False, has_openvino=has)[0]
        for has in (False, True)
    )
    assert (without.severity, beside.severity) == ("problem", "optional")
    assert without.command == beside.command
