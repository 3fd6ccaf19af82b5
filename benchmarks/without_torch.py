"""What predicting alone takes: an environment's size, the time to the first answer, peak memory.

The interpreter is of an environment that has `monoxkit[cpu]` and nothing else. Checkouts of the
package run side by side under it, so that one can be compared with another.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import harness

# `time.monotonic` is the system's clock: the same in the process that starts this one.
_FIRST_ANSWER = """
import json, sys, time
import monox_kit as mk
imported = time.monotonic()
model = mk.load(sys.argv[1])
loaded = time.monotonic()
model.predict([sys.argv[2]])
answered = time.monotonic()
import harness
print(json.dumps({"import_until": imported, "load_until": loaded, "answer_until": answered,
                  "peak_mb": harness.peak_bytes() / 1e6,
                  "has_torch": any(name in sys.modules for name in ("torch", "transformers"))}))
"""
_ENVIRONMENT = """
import importlib.util, json, sysconfig
from importlib import metadata
from pathlib import Path
site = Path(sysconfig.get_path("purelib"))
sizes = {}
for path in site.rglob("*"):
    if path.is_file() and not path.is_symlink():
        name = path.relative_to(site).parts[0]
        sizes[name] = sizes.get(name, 0) + path.stat().st_size / 1e6
largest = sorted(sizes, key=lambda name: -sizes[name])[:10]
distributions = sorted({one.metadata["Name"] for one in metadata.distributions()})
print(json.dumps({"mb": round(sum(sizes.values()), 1), "distributions": distributions,
                  "largest_mb": {name: round(sizes[name], 1) for name in largest},
                  "has_torch": importlib.util.find_spec("torch") is not None}))
"""


def main() -> None:
    """Start each bundle under each checkout, in turn, and write down what it took."""
    parser = harness.parser(__file__, __doc__, rounds=5)
    parser.add_argument("--python", required=True, help="an environment of monoxkit[cpu] alone")
    parser.add_argument("--bundles", nargs="+", required=True, help="ONNX bundles")
    parser.add_argument(
        "--packages", nargs="+", type=Path, default=[harness.ROOT], help="checkouts to compare"
    )
    parser.add_argument("--text", default="Das Paket kam zwei Tage zu spät an.")
    arguments = parser.parse_args()
    environment = harness.last_line(
        [arguments.python, "-c", _ENVIRONMENT], env=harness.environment()
    )
    if environment.pop("has_torch"):
        parser.error(f"--python {arguments.python}: this environment has torch.")

    def start(bundle: str, package: Path) -> dict[str, Any]:
        # -P: not the code of the folder that this is run in.
        command = [arguments.python, "-P", "-c", _FIRST_ANSWER, bundle, arguments.text]
        began = time.monotonic()
        found = harness.last_line(command, env=harness.environment(package))
        assert not found["has_torch"], found
        ends = [found[f"{part}_until"] for part in ("import", "load", "answer")]
        return {
            "first_answer_s": round(ends[2] - began, 3),
            "import_s": round(ends[0] - began, 3),
            "load_s": round(ends[1] - ends[0], 3),
            "answer_s": round(ends[2] - ends[1], 3),
            "peak_mb": round(found["peak_mb"], 1),
        }

    ways = {
        f"{Path(bundle).name}, {package.name}": harness.each_round(partial(start, bundle, package))
        for bundle in arguments.bundles
        for package in arguments.packages
    }
    if len(ways) < len(arguments.bundles) * len(arguments.packages):
        parser.error("--bundles and --packages: give folders of different names.")
    runs = harness.take_turns(ways, arguments.rounds, warm_up=True)
    result = {
        "environment": environment,
        "bundle_mb": {
            Path(bundle).name: round(
                sum(file.stat().st_size for file in Path(bundle).iterdir()) / 1e6, 1
            )
            for bundle in arguments.bundles
        },
        "median": harness.median_of_each(runs),
        "first_answer_s": {
            name: harness.spread(each)
            for name, each in harness.by_way(runs, "first_answer_s").items()
        },
        "times_first": harness.ratios(harness.by_way(runs, "first_answer_s"), next(iter(ways))),
    }
    bars = {name: each["first_answer_s"] for name, each in result["median"].items()}
    harness.publish(arguments, result, bars=bars, unit="seconds to the first answer")


if __name__ == "__main__":
    main()
