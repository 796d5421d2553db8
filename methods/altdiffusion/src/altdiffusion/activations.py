"""What a forward pass keeps for its backward pass, counted on the meta device: nothing is computed.

Autograd hands every tensor that it keeps to a hook; storages are counted once. Attention is counted
as the fused kernels keep it (queries, keys, values, output and one number a query), whatever the
meta device would do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        normaliser = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, normaliser)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


class _FusedAttentionMode(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is nn.functional.scaled_dot_product_attention:
            given = {**dict(zip(("query", "key", "value"), args, strict=False)), **(kwargs or {})}
            return _FusedAttention.apply(given["query"], given["key"], given["value"])
        return func(*args, **(kwargs or {}))


class Kept:
    """The storages that are kept, and how many bytes they are.

    Attributes:
        num_bytes: so far.
    """

    def __init__(self, module: nn.Module):
        """Weights of `module` are not counted: they are there anyway."""
        self.num_bytes = 0
        self._seen = {_storage(p): p for p in [*module.parameters(), *module.buffers()]}

    def add(self, tensor: Tensor) -> Tensor:
        """Counts a tensor's storage, once."""
        storage = _storage(tensor)
        if storage not in self._seen:
            self._seen[storage] = tensor  # kept alive, so that its place is not given to another
            self.num_bytes += tensor.untyped_storage().nbytes()
        return tensor


@contextmanager
def counting(module: nn.Module) -> Iterator[Kept]:
    """Counts what a forward pass of `module` inside keeps."""
    kept = Kept(module)
    with _FusedAttentionMode(), saved_tensors_hooks(kept.add, lambda tensor: tensor):
        yield kept


def kept_bytes(
    module: nn.Module, forward: Callable[[], Any], blocks: tuple[type, ...] = ()
) -> tuple[int, int]:
    """Bytes that a forward pass keeps, and the most that one of its blocks keeps.

    Args:
        module: on the meta device, in training mode.
        forward: calls it.
        blocks: classes of the modules that gradient checkpointing recomputes one at a time.
    """
    largest = 0
    with counting(module) as kept:
        starts: list[int] = []

        def begin(*_: Any) -> None:
            starts.append(kept.num_bytes)

        def end(*_: Any) -> None:
            nonlocal largest
            largest = max(largest, kept.num_bytes - starts.pop())

        handles = []
        for part in module.modules():
            if isinstance(part, blocks):
                handles.append(part.register_forward_pre_hook(begin))
                handles.append(part.register_forward_hook(end))
        try:
            forward()
        finally:
            for handle in handles:
                handle.remove()
    return kept.num_bytes, largest


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
