"""int8 but for the layers that cost the worst language most, which stay in fp32.

A graph's products are taken in runs, each about a layer. Each run is rounded alone, and the
calibration texts say what that costs every language: the mean KL divergence from the fp32 graph's
distributions. What counts is the language where it is largest: a layer that all others bear may be
what one language reads with. The costliest quarter stays as it is.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from monox_kit.data import Logits
from monox_kit.errors import NotFinite
from monox_kit.exporting.candidates import Subject
from monox_kit.exporting.quantize import product_names, smoothed_file, write_dynamic
from monox_kit.models.folder import FP32
from monox_kit.models.onnx_backend import OnnxClassifier
from monox_kit.models.scoring import score_texts
from monox_kit.problem import problem_of

# Runs of products that are judged: of an encoder of twelve layers, a layer each.
_RUNS = 12
# Of a graph three times as fast in int8, a quarter in fp32 leaves half of the gain.
_KEPT = 0.25


def write_mixed(source: Path, folder: Path, subject: Subject) -> tuple[str, ...]:
    """Write `model.onnx` into `folder`, a scratch folder, from the fp32 one in `source`.

    Returns:
        The names of the products that stay in fp32.
    """
    start = smoothed_file(source, folder, subject.calibration)
    names = product_names(start)
    runs = [run.tolist() for run in np.array_split(names, min(_RUNS, len(names)))]
    expected, costs = _logits(source, subject), []
    for run in runs:
        alone = folder / "alone"
        alone.mkdir()
        others = [name for name in names if name not in run]
        write_dynamic(start, alone, leave=others)
        costs.append(_cost(expected, alone, subject))
        shutil.rmtree(alone)
    kept = costliest(runs, costs)
    write_dynamic(start, folder, leave=kept)
    return kept


def costliest(runs: Sequence[Sequence[str]], costs: Sequence[float]) -> tuple[str, ...]:
    """The products of the runs that cost most, in the order of the graph."""
    count = math.ceil(_KEPT * len(runs))
    kept = sorted(sorted(range(len(runs)), key=lambda run: -costs[run])[:count])
    return tuple(name for run in kept for name in runs[run])


def _cost(expected: Logits, folder: Path, subject: Subject) -> float:
    """The mean divergence in the language where it is largest, in nats."""
    try:
        found = _logits(folder, subject)
    except NotFinite:
        return math.inf
    rows = problem_of(subject.reference.labels).divergence(expected, found)
    tags = subject.calibration_languages
    return max(float(rows[tags == tag].mean()) for tag in np.unique(tags))


def _logits(folder: Path, subject: Subject) -> Logits:
    """[N, C] of the calibration texts."""
    model = replace(subject.folder, path=folder)
    graph = OnnxClassifier(model, subject.reference.labels, precision=FP32)
    return score_texts(subject.runner(graph), subject.calibration).logits
