"""What a run starts from: new weights or an adapter to go on with, and what of it is frozen."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from crosslingual.adapter.artifact import load_strict
from crosslingual.training.engine import build_engine
from mulan.config import TrainSettings
from mulan.export import load_adapter
from mulan.method import build_adapter

ZERO_0 = {"zero_optimization": {"stage": 0}}
SHAPE = ("variant", "family", "encoder_width", "width", "pooled_width", "num_queries", "num_heads")


@dataclass
class Training:
    """What trains.

    Attributes:
        engine: DeepSpeed's, around the adapter.
        ema: the moving average of what trains, where the settings want one.
        frozen: tensors of the adapter that do not train: other languages of a seed adapter.
    """

    engine: Any
    ema: EMAModel | None
    frozen: dict[str, Tensor]

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The adapter's parameters that train."""
        return [p for p in self.engine.module.parameters() if p.requires_grad]


def make_adapter(
    settings: TrainSettings, config: dict[str, Any], unet: nn.Module | None = None
) -> nn.Module:
    """A new adapter, with the weights of `init_adapter` where there is one.

    Args:
        settings: of the run; a seed adapter's languages that are not among `languages` are frozen.
        config: the adapter's.
        unet: whose added embedding a replacement starts from.

    Raises:
        FileNotFoundError, ValueError: no such adapter, or one of another shape.
    """
    torch.manual_seed(settings.seed)
    adapter = build_adapter(config)
    if config["add_embedding"] and unet is not None:
        adapter.add_embedding.load_state_dict(unet.add_embedding.state_dict())
    if settings.init_adapter is not None:
        _go_on_with(adapter, settings.init_adapter, config)
    if config["variant"] == "seed":
        for language, layers in zip(config["languages"], adapter.languages, strict=True):
            layers.requires_grad_(language in settings.languages)
    return adapter


def _go_on_with(adapter: nn.Module, folder: str, config: dict[str, Any]) -> None:
    before, config_before = load_adapter(folder)
    for name in (*SHAPE, "num_layers", "text_encoder"):
        if config_before[name] != config[name]:
            raise ValueError(
                f"init_adapter {folder} has {name} {config_before[name]!r} and this run "
                f"{config[name]!r}: give the run the adapter's"
            )
    state = before.state_dict()
    if config["variant"] == "seed":
        places = [config["languages"].index(name) for name in config_before["languages"]]
        state = {_moved(name, places): tensor for name, tensor in state.items()}
    load_strict(adapter, {**adapter.state_dict(), **state})


def _moved(name: str, places: list[int]) -> str:
    """`languages.1.0.weight` under the number that its language has now."""
    head, number, rest = name.split(".", 2)
    return f"{head}.{places[int(number)]}.{rest}"


def build_training(
    settings: TrainSettings, config: dict[str, Any], unet: nn.Module | None = None
) -> Training:
    """The DeepSpeed engine around an adapter, and its moving average where the settings want one.

    Args:
        settings: of the run.
        config: the adapter's.
        unet: takes a replacement of its added embedding, if the adapter has one.
    """
    adapter = make_adapter(settings, config, unet)
    frozen = {
        name: parameter.detach().clone()
        for name, parameter in adapter.named_parameters()
        if not parameter.requires_grad
    }
    trainable = [p for p in adapter.parameters() if p.requires_grad]
    ema = EMAModel(trainable, decay=settings.ema_decay) if settings.use_ema else None
    engine = build_engine(
        adapter,
        settings.deepspeed_config or ZERO_0,
        learning_rate=settings.learning_rate,
        weight_decay=settings.adam_weight_decay,
        betas=(settings.adam_beta1, settings.adam_beta2),
        lr_scheduler=settings.lr_scheduler,
        lr_warmup_steps=settings.lr_warmup_steps,
        lr_end=settings.lr_end,
        max_train_steps=settings.max_train_steps,
        max_grad_norm=settings.max_grad_norm,
        train_batch_size=settings.train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        mixed_precision=settings.mixed_precision,
    )
    if config["add_embedding"] and unet is not None:
        unet.add_embedding = engine.module.add_embedding
    return Training(engine, ema, frozen)
