"""What is trained, at which rate, and AdamW's state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from monox_kit.errors import ConfigError
from monox_kit.training.config import EmbeddingMode, LoopConfig


def new_optimizer(
    trainable: Mapping[str, torch.nn.Parameter], config: LoopConfig, model: Any
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters."""
    # fused: one pass over the parameters, a tenth of the default's time on a CPU.
    groups = _parameter_groups(trainable, config, model)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its multiple of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def learning_rate_at(config: LoopConfig, step: int, num_steps: int) -> float:
    """The rate of `step` (from 0) of `num_steps`: linear warm-up, then the schedule."""
    warmup = round(config.warmup_fraction * num_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (num_steps - step) / max(num_steps - warmup, 1)


def embedding_mode(config: LoopConfig) -> EmbeddingMode:
    """What becomes of the word embeddings; below frozen layers they are frozen too."""
    return "frozen" if config.freeze_layers else config.embeddings


def freeze(model: Any, config: LoopConfig) -> None:
    """Take the word embeddings and the lowest layers out of training as `config` says.

    Raises:
        ConfigError: the model has fewer layers.
    """
    if embedding_mode(config) == "frozen":
        model.get_input_embeddings().requires_grad_(False)
    if not config.freeze_layers:
        return
    count = num_layers(model.config)
    if config.freeze_layers > count:
        raise ConfigError(
            f"`freeze_layers`: expected at most the model's {count} layers, found "
            f"{config.freeze_layers}. Give a smaller number."
        )
    base = model.base_model
    if hasattr(base, "embeddings"):
        base.embeddings.requires_grad_(False)
    # Tables that all layers look up, such as MPNet's relative positions, are part of frozen ones.
    for name in _embedding_parameters(model):
        model.get_parameter(name).requires_grad_(False)
    lists = [m for m in base.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if not lists:
        raise ConfigError(
            f"`freeze_layers`: expected {count} separate layers, found none in "
            f"{type(model).__name__}: its layers share weights. Use `freeze_layers` 0."
        )
    for layer in lists[0][: config.freeze_layers]:
        layer.requires_grad_(False)


def num_layers(config: Any) -> int:
    """The number of layers of a transformers model, whatever its family calls them.

    Raises:
        ConfigError: optimum does not know the family.
    """
    from optimum.utils import NormalizedConfigManager

    try:
        normalized = NormalizedConfigManager.get_normalized_config_class(config.model_type)
    except KeyError as error:
        raise ConfigError(
            f"`freeze_layers`: expected a model family whose layers are known, found "
            f"{config.model_type!r}. Use `freeze_layers` 0."
        ) from error
    return int(normalized(config).num_layers)


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """AdamW's per-parameter state by `<parameter>/<moment>`."""
    return {
        f"{name}/{key}": value.detach().cpu()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Put back what `optimizer_tensors` took."""
    for key, value in tensors.items():
        name, _, moment = key.rpartition("/")
        # The fused AdamW keeps all of it beside the parameter, the count of its steps too.
        optimizer.state[parameters[name]][moment] = value.to(parameters[name].device)


def _parameter_groups(
    trainable: Mapping[str, torch.nn.Parameter], config: LoopConfig, model: Any
) -> list[dict[str, Any]]:
    """Groups with weight decay on matrices alone, and another rate for what is not pretrained.

    Embeddings are not decayed: that would shrink the rows of every language that the run does not
    see, a little at each step.
    """
    encoder = model.base_model_prefix
    undecayed = _embedding_parameters(model)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in trainable.items():
        is_head = not name.startswith(f"{encoder}.") or f"{encoder}.pooler." in name
        factor = config.head_factor if is_head else 1.0
        is_decayed = parameter.ndim > 1 and name not in undecayed
        decay = config.weight_decay if is_decayed else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": parameters, "factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


def _embedding_parameters(model: Any) -> set[str]:
    """The names of the parameters of `model` that are tables looked up by id."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding)
    }
