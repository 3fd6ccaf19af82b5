"""Everything that a training run needs to go on as if it had not been interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from monox_kit.errors import NotFinite
from monox_kit.training.finite import first_not_finite
from monox_kit.training.order import Position
from monox_kit.training.processes import Processes

Tensors = dict[str, torch.Tensor]
Parameters = Mapping[str, torch.nn.Parameter]
# measure (a key of `problem.MEASURES`) in [0, 1], loss in nats, and the step or the number of rows
Figures = Mapping[str, float]


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """What a checkpoint holds.

    Attributes:
        step: finished steps.
        position: of the next batch in the order of rows.
        model: trainable parameters by name.
        optimizer: AdamW's moments by `<parameter>/<moment>`.
        random: the states of PyTorch's generators by `<rank>/<device type>`, uint8.
        best: trainable parameters at the best dev evaluation; empty before the first.
        best_result: step, measure and loss that it was chosen by; empty before the first.
        best_sets: its measure, loss and rows by dev set; empty before the first.
        history: step, measure and loss of every dev evaluation.
    """

    step: int = 0
    position: Position = field(default_factory=Position)
    model: Tensors = field(default_factory=dict)
    optimizer: Tensors = field(default_factory=dict)
    random: Tensors = field(default_factory=dict)
    best: Tensors = field(default_factory=dict)
    best_result: Figures = field(default_factory=dict)
    best_sets: Mapping[str, Figures] = field(default_factory=dict)
    history: list[Figures] = field(default_factory=list)

    def require_finite(self) -> None:
        """Check that what is to be kept is worth it.

        Raises:
            NotFinite: a tensor holds NaN or an infinity.
        """
        for group, tensors in (("weights", self.model), ("optimizer state", self.optimizer)):
            name = first_not_finite(tensors)
            if name is not None:
                raise NotFinite(
                    f"step {self.step}: expected finite {group} to save, found NaN or Inf in "
                    f"{name}. Lower `learning_rate`; earlier checkpoints are kept."
                )


def copied(parameters: Parameters) -> Tensors:
    """The parameters' values, which later steps do not change."""
    return {name: value.detach().cpu().clone() for name, value in parameters.items()}


def assign(parameters: Parameters, values: Mapping[str, torch.Tensor]) -> None:
    """Give every parameter its value."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def seed_generators(seed: int, rank: int) -> None:
    """Begin every process's own random numbers; those of the first are the seed's own."""
    if rank:
        drawn = np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0]
        seed = int(drawn >> np.uint64(1))
    torch.manual_seed(seed)


def generator_states(processes: Processes) -> Tensors:
    """The states of all processes' generators."""
    states = {"cpu": torch.get_rng_state()}
    if processes.device.startswith("cuda"):
        states["cuda"] = torch.cuda.get_rng_state(processes.device)
    return {
        f"{rank}/{kind}": state
        for kind, mine in states.items()
        for rank, state in enumerate(processes.gather(mine))
    }


def restore_generators(states: Tensors, processes: Processes, seed: int) -> None:
    """Put back what `generator_states` took.

    A process that the run had not been saved by begins anew.
    """
    seed_generators(seed, processes.rank)
    cpu, cuda = (states.get(f"{processes.rank}/{kind}") for kind in ("cpu", "cuda"))
    if cpu is not None:
        torch.set_rng_state(cpu)
    if cuda is not None and processes.device.startswith("cuda"):
        torch.cuda.set_rng_state(cuda, processes.device)


def num_saving_processes(states: Tensors) -> int:
    """How many processes the generators' states are of."""
    return len({name.partition("/")[0] for name in states})
