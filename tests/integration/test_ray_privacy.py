"""A real cluster of a run's own: nobody else reaches it, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow

# Two clusters in one process, each asked for what listens, and for what a worker would write.
_PROGRAM = """
import json, os, sys
from pathlib import Path
import psutil
import ray
from monox_kit.labelling.cluster import _connected
from monox_kit.labelling.ray_privacy import clusters_here
from monox_kit.labelling.worker import ShardWorker

class Worker(ShardWorker):
    def mode_of_a_new_file(self, path):
        Path(path).touch()
        return Path(path).stat().st_mode & 0o777

def listening():
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        for found in process.net_connections("inet"):
            if found.status == psutil.CONN_LISTEN:
                yield found.laddr.ip

os.umask(0o027)
scratch = Path(os.environ["RAY_TMPDIR"])
for number in range(2):
    with _connected(ray, None) as umask:
        worker = ray.remote(num_cpus=1)(Worker).remote(1, umask)
        file = str(Path(sys.argv[1]) / f"file-{number}")
        print(json.dumps({
            "mode": ray.get(worker.mode_of_a_new_file.remote(file)),
            "listening": sorted(set(listening())),
            "auto": clusters_here()[0],
            "address": ray.get_runtime_context().gcs_address,
            "folders": [oct(each.stat().st_mode & 0o777) for each in scratch.iterdir()],
        }))
print(json.dumps({"umask": os.umask(0), "token": os.environ.get("RAY_AUTH_TOKEN")}))
"""


def test_a_cluster_of_the_runs_own_is_this_users_alone(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", Path("/tmp") / f"mk-{os.getpid()}"  # sockets: short paths
    home.mkdir()
    scratch.mkdir()
    variables = {**os.environ, "HOME": str(home), "RAY_TMPDIR": str(scratch)}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        variables.pop(name, None)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(tmp_path)],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        left = list(scratch.iterdir())
    finally:
        scratch.rmdir()
    assert not left
    *clusters, after = map(json.loads, done.stdout.splitlines())
    assert len(clusters) == 2
    for found in clusters:
        assert set(found["listening"]) <= {"127.0.0.1", "::ffff:127.0.0.1"}
        assert found["listening"]
        assert found["address"] in found["auto"]
        assert found["folders"] == ["0o700"]
        assert found["mode"] == 0o640
    assert after == {"umask": 0o027, "token": None}
    assert not list(home.iterdir())
