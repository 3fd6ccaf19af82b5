"""The server as a Ray Serve application."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import monox_kit as mk
from monox_kit.errors import ConfigError
from monox_kit.serving.config import ServeConfig
from monox_kit.serving.ray import application

_PARTS = ("fastapi", "aiohttp", "grpc_reflection")  # of the extra `serve` of Ray itself
HAS_SERVE = all(importlib.util.find_spec(name) for name in ("ray", *_PARTS))

# In a process of its own: Ray Serve's threads outlive it.
_PROGRAM = """
import json, sys, urllib.request
import ray
from ray import serve
from monox_kit.serving.config import ServeConfig
from monox_kit.serving.ray import application

bundle, *texts = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
serve.start(http_options={"host": "127.0.0.1", "port": 18_733})
serve.run(application(ServeConfig(bundles=(f"tiny={bundle}",), threads=1)))
body = json.dumps({"inputs": [[text] for text in texts]}).encode()
with urllib.request.urlopen("http://127.0.0.1:18733/predict", data=body) as answer:
    print("answer:", answer.read().decode())
serve.shutdown()
ray.shutdown()
"""


# Ray's own settings use what pydantic 2 deprecates.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
@pytest.mark.skipif(HAS_SERVE, reason="Ray Serve is installed")
def test_without_ray_serve_the_error_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"ray\[serve\]"):
        application(ServeConfig(bundles=("folder",)))


@pytest.mark.skipif(not HAS_SERVE, reason="ray[serve] is not installed")
def test_replicas_answer_as_the_loaded_model(bundle: Path) -> None:
    rows = ["mail alpha", "game", "font beta gamma"]
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(bundle), *rows],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"},
    )
    told = [line for line in ended.stdout.splitlines() if line.startswith("answer: ")]
    assert told, ended.stdout + ended.stderr
    found = json.loads(told[0].removeprefix("answer: "))
    for mine, theirs in zip(found, mk.load(str(bundle)).predict(rows), strict=True):
        assert mine[0]["label"] == theirs.label
        assert mine[0]["score"] == pytest.approx(theirs.probability, abs=1e-5)
