"""An environment of transformers 4.57, both optimums and tritonclient, which read our folders.

None of them runs beside the suite's own packages, so an environment of their own is made once,
below pytest's cache folder. It borrows torch and the rest from the suite's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monox_kit.locks import owned_folder

PACKAGES = (
    "transformers==4.57.6",
    "optimum-onnx==0.1.0",
    "optimum==2.1.0",
    "optimum-intel==1.27.0",  # the last for transformers 4; it runs on the suite's openvino
    "huggingface_hub<1",
    "tokenizers>=0.22,<0.23",
    "tritonclient==2.73.0",  # Triton's protocol buffers; its wheel asks for an older protobuf
)
READER = Path(__file__).with_name("older_reader.py")


def make_environment(root: Path) -> Path:
    """The interpreter of the environment below `root`, made where it is not there yet."""
    python = root / "env" / "bin" / "python"
    done = root / "done"
    with owned_folder(root / "env"):
        if not done.is_file() or done.read_text() != repr(PACKAGES):
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", "--without-pip", str(root / "env")],
                check=True,
            )
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
            subprocess.run([*pip, "--no-deps", *PACKAGES], check=True)
            own = subprocess.run(
                [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                check=True, capture_output=True, text=True,
            ).stdout.strip()  # fmt: skip
            # Looked at after its own packages: torch, numpy and onnxruntime are the suite's.
            (Path(own) / "suite.pth").write_text(sysconfig.get_path("purelib") + "\n")
            done.write_text(repr(PACKAGES))
    return python


def run_older(python: Path, arguments: Sequence[str], given: str = "") -> str:
    """What the environment's interpreter prints."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), *arguments],
        input=given,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def read_by_older(
    python: Path, folders: Sequence[tuple[Path, str]], texts: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What `older_reader` finds in folders of some kinds."""
    asked = [{"folder": str(path), "kind": kind, "texts": list(texts)} for path, kind in folders]
    found = json.loads(run_older(python, [str(READER)], json.dumps(asked)))
    assert found["transformers"] == "4.57.6"
    answers: list[dict[str, Any]] = found["answers"]
    return answers
