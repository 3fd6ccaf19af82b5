"""The tensors of a checkpoint: read from its files and checked against the model in training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from monox_kit.errors import CheckpointError, first_line
from monox_kit.store.record import PlainFolder, typed
from monox_kit.training.finite import first_not_finite
from monox_kit.training.state import Parameters, Tensors

DAMAGED = "The checkpoint is damaged."
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
# Seed and offset, 8 bytes each. Source: CUDAGeneratorImpl::get_state of PyTorch.
_CUDA_STATE_BYTES = 16
# A safetensors file begins with its header's length, little endian; 10,000 tensors with names of
# 100 letters have a header of 2 MB.
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 1 << 23


def read_tensors(opened: PlainFolder, path: Path, entry: Any) -> Tensors:
    """The tensors of a file whose size and digest are those of its `entry` in the record."""
    if not isinstance(entry, dict) or set(entry) != {"bytes", "digest"}:
        raise damaged(path, "its size and digest in the record", repr(entry)[:60])
    num_bytes = typed(entry, "bytes", int, path, DAMAGED)
    with opened.open_file(path.name, num_bytes) as stream:
        content = stream.readall()
    found = hashlib.sha256(content).hexdigest()
    if found != entry["digest"]:
        raise damaged(path, f"digest {str(entry['digest'])[:12]}", found[:12])
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if length > _MAX_HEADER_BYTES:  # the library itself takes 100 MB, and 20 times that in memory
        raise damaged(path, f"a header of at most {_MAX_HEADER_BYTES} bytes", f"{length}")
    try:
        # Of the bytes that were checked: mapped from the file they could change or go under a run.
        return load(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise damaged(path, "safetensors", first_line(error)) from error


def require_fitting(
    folder: Path, groups: Mapping[str, Tensors], parameters: Parameters, has_best: bool
) -> None:
    """Check that the tensors are those of a run of this model, and finite.

    Raises:
        CheckpointError: they are not.
    """
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    for group, tensors in groups.items():
        path = folder / f"{group}.safetensors"
        dtype = torch.uint8 if group == "random" else torch.float32
        for name, tensor in tensors.items():
            if tensor.dtype != dtype:
                raise damaged(path, f"{dtype} values of {name}", str(tensor.dtype))
        if group in ("model", "best"):
            wanted = {} if group == "best" and not has_best else shapes
            found = {name: tuple(value.shape) for name, value in tensors.items()}
            if found != wanted:
                differing = sorted(found.items() ^ wanted.items())[0][0]
                raise damaged(
                    path,
                    f"{differing} of shape {wanted.get(differing)}",
                    f"shape {found.get(differing)}",
                )
        elif group == "optimizer":
            _require_moments(path, tensors, shapes)
        else:
            _require_generators(path, tensors)
        not_finite = first_not_finite(tensors)
        if not_finite is not None:
            raise damaged(path, "finite values", f"NaN or Inf in {not_finite}")


def _require_moments(path: Path, tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that AdamW's state is whole for every parameter that it has one of, and has some.

    A parameter without any is one that no step had a gradient of, such as an unused pooler.
    """
    owners = {name.rpartition("/")[0] for name in tensors}
    unknown = sorted(owners - shapes.keys())
    if unknown or not owners:
        found = f"some of {unknown[0]}" if owners else "none"
        raise damaged(path, "moments of trainable parameters", found)
    wanted = {
        f"{owner}/{moment}": () if moment == "step" else shapes[owner]
        for owner in owners
        for moment in _MOMENTS
    }
    found_shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found_shapes != wanted:
        name = min(found_shapes.items() ^ wanted.items())[0]
        raise damaged(
            path, f"{name} of shape {wanted.get(name)}", f"shape {found_shapes.get(name)}"
        )


def _require_generators(path: Path, tensors: Tensors) -> None:
    """Check that the generators' states are ones that PyTorch takes."""
    lengths = {"cpu": torch.get_rng_state().numel(), "cuda": _CUDA_STATE_BYTES}
    for name, tensor in tensors.items():
        rank, _, kind = name.partition("/")
        if not rank.isdecimal() or tuple(tensor.shape) != (lengths.get(kind),):
            raise damaged(
                path,
                f"the state of a generator, {lengths} bytes",
                f"{name} of shape {tuple(tensor.shape)}",
            )
    if "0/cpu" not in tensors:
        raise damaged(path, "the state 0/cpu", f"{sorted(tensors)[:3]}")


def damaged(path: Path, expected: str, found: str) -> CheckpointError:
    """The error for a part of a checkpoint that is not as it was written."""
    return CheckpointError(f"{path}: expected {expected}, found {found}. {DAMAGED}")
