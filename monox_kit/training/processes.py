"""The processes of one training run: one alone, or those that a launcher started together."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import distributed

from monox_kit import errors
from monox_kit.errors import ConfigError, MonoxError
from monox_kit.models.torch_backend import require_device

T = TypeVar("T")

# Of an error that the other processes are told; those of this package are shorter.
_MESSAGE_BYTES = 4096


def is_first() -> bool:
    """Whether this process is the one that writes and shows results; tells before any joins."""
    return num_started() == 1 or int(os.environ.get("RANK", "0")) == 0


class Processes:
    """This process among those of its run; made by `join_processes`.

    Attributes:
        rank: of this process, from 0.
        count: how many there are.
        device: where this one computes.
    """

    def __init__(self, rank: int, count: int, device: str) -> None:
        self.rank, self.count, self.device = rank, count, device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes, the same bits in each."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes.

        One collective call a step. Unlike DistributedDataParallel it asks neither for rows in every
        process nor for as many micro-batches in each. A parameter that no process has a gradient
        of keeps none: the optimizer passes over it, as in a single process.
        """
        if self.count == 1:
            return
        known = list(parameters)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in known]
        present = torch.tensor([float(p.grad is not None) for p in known], device=self.device)
        flat = torch.cat([*(part.flatten() for part in parts), present])
        distributed.all_reduce(flat)
        *sums, present = torch.split(flat, [*(p.numel() for p in known), len(known)])
        for parameter, total, count in zip(known, sums, present.tolist()):
            parameter.grad = total.view_as(parameter) if count else None

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The tensor of each process, in the order of ranks; of equal shapes, on the CPU."""
        if self.count == 1:
            return [values]
        mine = values.to(self.device)
        found = [torch.empty_like(mine) for _ in range(self.count)]
        distributed.all_gather(found, mine)
        return [each.cpu() for each in found]

    def from_first(self, value: int) -> int:
        """The first process's number."""
        return int(self.sum([value if self.is_first else 0])[0])

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returns here; an error of it in any process is raised in all of them.

        Without this the others would wait for that process in their next sum. `work` itself calls
        no other process.

        Raises:
            MonoxError: `work` raised it in this process, or in the first of those where it did.
        """
        if self.count == 1:
            return work()
        failure = None
        try:
            result = work()
        except MonoxError as error:
            failure = error
        if self.sum([float(failure is not None)]) == [0.0]:
            return result
        said = b"" if failure is None else f"{type(failure).__name__} {failure}".encode()
        mine = torch.zeros(_MESSAGE_BYTES, dtype=torch.uint8)
        mine[: len(said)] = torch.tensor(list(said[:_MESSAGE_BYTES]), dtype=torch.uint8)
        messages = [bytes(each.tolist()).rstrip(b"\0") for each in self.gather(mine)]
        if failure is not None:
            raise failure
        rank, first = next((rank, each) for rank, each in enumerate(messages) if each)
        kind, _, message = first.decode(errors="replace").partition(" ")
        raise getattr(errors, kind)(f"process {rank}: {message}")

    def wait(self) -> None:
        """Return when all processes have come here."""
        self.sum([0.0])


def join_processes(device: str) -> Processes:
    """This process among those that `torchrun` or `accelerate launch` started; else one alone.

    Args:
        device: `cpu`, `cuda` or `cuda:N`; of several processes on `cuda` each takes its own.

    Raises:
        ConfigError: a single device for several processes.
        ProviderError: the device is not there.
    """
    require_device(device)
    PartialState._reset_state()  # it remembers the first run's device
    if device.startswith("cuda:"):
        if num_started() > 1:
            raise ConfigError(
                f"`device`: expected cuda for several processes, found {device}. Give `device` "
                "cuda: each process takes a device of its own."
            )
        torch.cuda.set_device(torch.device(device))
    state = PartialState(cpu=device == "cpu")
    if state.num_processes != num_started():
        raise ConfigError(
            f"WORLD_SIZE: expected {state.num_processes} processes on `device` {device}, found "
            f"{num_started()} in the environment. Start them with torchrun or accelerate launch."
        )
    if state.num_processes > 1:
        _leave_at_exit()
    on = device if device.startswith("cuda:") else str(state.device)
    return Processes(state.process_index, state.num_processes, on)


def num_started() -> int:
    """How many processes the launcher says it started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@functools.cache
def _leave_at_exit() -> None:
    """Leave the group of processes when this one ends, which a later run in it still needs."""
    atexit.register(distributed.destroy_process_group)
