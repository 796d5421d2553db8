"""How large a run is: parameters and memory of a GPU, from shapes alone, for `NAME info`.

What is counted, in bytes: weights in fp32 (4 for each parameter, frozen or not), gradients (4),
AdamW's moments (8), DeepSpeed's own fp32 copy at ZeRO 1 to 3 (4), bf16 copies that autocast keeps
of what trains (2), the moving average (4), and what the forward pass keeps for the backward pass,
which includes bf16 copies of the frozen weights that gradients pass. Not counted: the CUDA context,
workspaces of kernels, communication buckets (set in ds/*.json), fragmentation, norms that autocast
keeps in fp32, features of a teacher that are matched, and at ZeRO 3 the layers that are gathered at
a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from crosslingual.frozen.base import Base
from crosslingual.frozen.denoiser import Conditioning
from crosslingual.frozen.encoders import encoder_on_meta

GIB, MIB = 2**30, 2**20
LEVELS = (0, 1, 2, 3)
NUM_GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Estimate:
    """Sizes of a run on one GPU.

    Attributes:
        trainable: parameters that train.
        frozen: parameters of the same module that do not.
        activations: bytes that a micro-step keeps for its backward pass.
        is_bf16: whether autocast keeps bf16 copies.
        has_ema: whether a moving average is kept.
        held: parameters of frozen models outside the engine, which ZeRO 3 does not share out.
    """

    trainable: int
    frozen: int
    activations: int
    is_bf16: bool
    has_ema: bool
    held: int = 0

    def total(self, level: int, num_gpus: int) -> float:
        """Bytes of a GPU at a ZeRO level."""
        share = 1 / num_gpus
        weights = 4 * (self.trainable + self.frozen) * (share if level == 3 else 1)
        gradients = 4 * self.trainable * (share if level >= 2 else 1)
        moments = 8 * self.trainable * (share if level >= 1 else 1)
        master = 4 * self.trainable * share if level >= 1 else 0
        copies = (2 * self.is_bf16 + 4 * (self.has_ema and level < 3)) * self.trainable
        return weights + 4 * self.held + gradients + moments + master + copies + self.activations


def count(module: nn.Module, trains: bool) -> int:
    """A module's parameters that train, or those that do not."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad == trains)


def estimate(
    trained: nn.Module,
    forward: Callable[[torch.dtype], Any],
    settings: Any,
    *,
    held: nn.Module | None = None,
    checkpoint: Callable[[], None] | None = None,
) -> Estimate:
    """What training takes.

    Args:
        trained: the module that the engine holds, on the meta device; left in training mode and in
            the run's precision.
        forward: makes a micro-step's inputs in the given dtype and calls the modules; the meta
            device is its default.
        settings: of the run; `mixed_precision` and `use_ema` count.
        held: the frozen modules that the process holds besides.
        checkpoint: switches gradient checkpointing on; None where the run has none.
    """
    is_bf16 = settings.mixed_precision == "bf16"
    dtype = torch.bfloat16 if is_bf16 else torch.float32
    both = nn.ModuleList([trained] if held is None else [trained, held.requires_grad_(False)])
    nn.Module.to(both, dtype)  # past diffusers' own `to`, which warns of layers for fp32
    both.train()
    with torch.device("meta"):
        kept, largest = kept_bytes(both, lambda: forward(dtype), casts=is_bf16)
        if checkpoint is not None:
            checkpoint()
            kept = kept_bytes(both, lambda: forward(dtype), casts=is_bf16)[0] + largest
    sizes = count(trained, True), count(trained, False)
    num_held = 0 if held is None else count(held, False)
    return Estimate(*sizes, kept, is_bf16, settings.use_ema, num_held)


def print_info(
    title: str, found: Estimate, frozen: Mapping[str, int], trains: str = "adapter"
) -> dict[str, int]:
    """Prints the parameters of a run's parts and the memory of a GPU as tables.

    Args:
        title: the line above the tables.
        found: of `estimate`.
        frozen: parameters of the frozen parts by name, whether training holds them or only
            features need them.
        trains: what trains, in a word.

    Returns:
        `trainable`, `total` and the frozen parts, in parameters.
    """
    # what trains has a gradient and AdamW's two moments besides the weight
    rows = [(f"{trains} (trains)", found.trainable, 16 * found.trainable)]
    rows += [(name, number, 4 * number) for name, number in frozen.items()]
    total = sum(number for _, number, _ in rows)
    rows.append(("total", total, sum(size for _, _, size in rows)))
    print(f"{title}\n{'part':<40} {'parameters':>14} {'memory, fp32':>14}")
    for name, number, size in rows:
        print(f"{name:<40} {number:>14,} {size / MIB:>10,.1f} MiB")
    print(f"trainable share {found.trainable / total:.2%}")
    precision = "bf16 autocast" if found.is_bf16 else "fp32"
    ema = ", a moving average" if found.has_ema else ""
    kept = f"activations of a micro-step {found.activations / GIB:.2f}"
    print(f"\nGiB of a GPU in training ({precision}{ema}; {kept})")
    print(f"| GPUs | {' | '.join(f'ZeRO {level}' for level in LEVELS)} |\n{'| ---: ' * 5}|")
    for num_gpus in NUM_GPUS:
        totals = (found.total(level, num_gpus) / GIB for level in LEVELS)
        print(f"| {num_gpus} | {' | '.join(f'{total:.1f}' for total in totals)} |")
    return {"trainable": found.trainable, "total": total, **frozen}


def adapter_info(
    title: str,
    settings: Any,
    config: Mapping[str, Any],
    build: Callable[[Any], nn.Module],
    *,
    base: Base,
    through_denoiser: bool = True,
    call: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]] = nn.Module.__call__,
) -> dict[str, int]:
    """`info` of a method whose adapter, built from its config, maps an encoder's states to the
    denoiser's.

    `build` makes the module that the config describes, and `call` gives its answer (states, pooled)
    to an encoder's states (B, L, C). Training holds the denoiser if the loss is `through_denoiser`.
    """
    model = base.denoiser_on_meta()
    counts = base.count_parameters(model)
    with torch.device("meta"):
        adapter = build(config)

    def forward(dtype: torch.dtype) -> Any:
        shape = settings.train_batch_size, config["max_length"], config["encoder_width"]
        text = Conditioning(*call(adapter, torch.empty(shape, dtype=dtype)))
        if not through_denoiser:
            return text
        mask = torch.ones(text.states.shape[:2]) if base.text.takes_mask else None
        return predict_on_meta(base, model, settings, text._replace(mask=mask))

    options: dict[str, Any] = {}
    if through_denoiser:
        if config.get("replaces_projection"):
            base.family.drop_projection(model)
        is_recomputed = settings.gradient_checkpointing
        checkpoint = model.enable_gradient_checkpointing if is_recomputed else None
        options = {"held": model, "checkpoint": checkpoint}
    encoder = config["text_encoder"]
    frozen = {"denoiser": counts["denoiser"], "VAE": counts["vae"]}
    frozen[f"encoder {encoder}"] = encoder_on_meta(encoder, config["text_encoder_revision"])
    return print_info(title, estimate(adapter, forward, settings, **options), frozen)


def predict_on_meta(base: Base, model: nn.Module, settings: Any, text: Conditioning) -> Tensor:
    """A denoiser's prediction for a micro-step's latents, in the precision of the text states."""
    edge = settings.resolution // base.latents.downscale
    shape = settings.train_batch_size, base.latents.channels, edge, edge
    latents = torch.empty(shape, dtype=text.states.dtype)
    times = torch.empty(settings.train_batch_size, dtype=torch.int64)
    return base.wrap_denoiser(model, resolution=settings.resolution).predict(latents, times, text)


class _FusedAttention(TorchFunctionMode):
    """Lets attention keep what the fused kernels keep (queries, keys, values, output and one number
    for each query), which the meta device would not.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = {**dict(zip(("query", "key", "value"), args, strict=False)), **(kwargs or {})}
        parts = (given[name] for name in ("query", "key", "value"))
        # contiguous, as the answer of some kernels: joining the heads then copies it, which counts
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*parts)[0].contiguous()


def kept_bytes(
    module: nn.Module,
    forward: Callable[[], Any],
    blocks: tuple[type, ...] | None = None,
    casts: bool = False,
) -> tuple[int, int]:
    """Bytes that a forward pass keeps for its backward pass, and the most that one of its blocks
    keeps. Autograd hands every tensor that it keeps to a hook; each storage counts once.

    Args:
        module: on the meta device, in training mode. Its weights do not count.
        forward: calls it.
        blocks: classes of the modules that gradient checkpointing computes again one at a time;
            diffusers' and transformers' if None.
        casts: whether autocast makes copies of frozen weights, which count.
    """
    blocks = _checkpointed() if blocks is None else blocks
    weights = (p for p in module.parameters() if p.requires_grad or not casts)
    seen = {_storage(tensor): tensor for tensor in (*module.buffers(), *weights)}
    num_bytes, largest, starts = 0, 0, []

    def keep(tensor: Tensor) -> Tensor:
        nonlocal num_bytes
        if _storage(tensor) not in seen:
            seen[_storage(tensor)] = tensor  # alive, so that no other storage gets its place
            num_bytes += tensor.untyped_storage().nbytes()
        return tensor

    def end(*_: Any) -> None:
        nonlocal largest
        largest = max(largest, num_bytes - starts.pop())

    handles = []
    for part in module.modules():
        if isinstance(part, blocks):
            handles.append(part.register_forward_pre_hook(lambda *_: starts.append(num_bytes)))
            handles.append(part.register_forward_hook(end))
    with _FusedAttention(), saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    for handle in handles:
        handle.remove()
    return num_bytes, largest


def _checkpointed() -> tuple[type, ...]:
    from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers import sana_transformer, transformer_flux
    from transformers.modeling_layers import GradientCheckpointingLayer

    return (
        BasicTransformerBlock,
        JointTransformerBlock,
        transformer_flux.FluxTransformerBlock,
        transformer_flux.FluxSingleTransformerBlock,
        sana_transformer.SanaTransformerBlock,
        ResnetBlock2D,
        GradientCheckpointingLayer,
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
