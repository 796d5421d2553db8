"""Prompts through an adapter as conditioning, for a base that another program runs.

A method attaches what it exports to stock diffusers pipelines. Here it is attached to one whose
denoiser does next to nothing, since ComfyUI denoises, and the pipeline's own `encode_prompt` gives
the conditioning. The rules of padding, masks, prefixes and empty prompts are then diffusers' and
the method's, and a new method needs no line here.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from crosslingual.adapter.artifact import load_artifact_config
from crosslingual.data.text import check_characters
from crosslingual.frozen.denoiser import Conditioning, Family
from crosslingual.frozen.families import FAMILIES
from crosslingual.frozen.tokens import Cut, on_cut, report_cut
from crosslingual.frozen.weights import quiet_libraries
from crosslingual_comfyui.bases import BASES, Kind

Widths = tuple[int, int | None]  # of states, and of the pooled vector if there is one


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter with its frozen encoder, on the CPU except while a prompt is encoded.

    Attributes:
        kind: of base that takes the conditioning.
        pipe: the stock pipeline that both are attached to.
        device: where prompts are encoded.
    """

    kind: Kind
    pipe: Any
    device: torch.device

    @torch.no_grad()
    def encode(self, text: str, *, negative: bool = False) -> tuple[Conditioning, list[Cut]]:
        """States (1, L, D) and pooled vector (1, P) or None, fp32 on the CPU, as diffusers' own
        pipeline has them, and what was cut of the text.

        Args:
            text: a prompt in any language of the adapter.
            negative: read it as a negative prompt; an empty one is zeros where the adapter was
                trained so.

        Raises:
            ValueError: the text holds half a character.
        """
        check_characters(text)
        has_negative = "negative states" in self.kind.answer
        options = {"device": self.device, "num_images_per_prompt": 1, **self.kind.options}
        if has_negative:
            options["do_classifier_free_guidance"] = negative
            options["negative_prompt"] = text if text.strip() else None
        if not _family(self.kind).has_cross_attention:  # T5's, which is longer by default
            options["max_sequence_length"] = self.pipe.tokenizer.model_max_length
        cuts: dict[str, Cut] = {}  # by the text, which several tokenizers may cut
        with self._on_device(), report_cut(self.pipe), on_cut(lambda c: cuts.setdefault(c.text, c)):
            answer = self.pipe.encode_prompt(text, **options)
        found = dict(zip(self.kind.answer, answer, strict=True))
        prefix = "negative " if negative and has_negative else ""
        pooled = found.get(f"{prefix}pooled")
        states = _plain(found[f"{prefix}states"])
        given = Conditioning(states, None if pooled is None else _plain(pooled))
        return given, list(cuts.values())

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Moves the weights to the device and back, so that sampling has its memory."""
        modules = [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]
        try:
            for module in modules:
                module.to(self.device)
            yield
        finally:
            for module in modules:
                module.to("cpu")


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", torch.float32)


def load_adapter(
    folder: str | Path, base: str, device: torch.device, dtype: torch.dtype
) -> LoadedAdapter:
    """Loads an exported adapter and the encoder that it names.

    Args:
        folder: of the export.
        base: a name in `BASES`.
        device: where prompts are encoded.
        dtype: precision of the weights.

    Raises:
        FileNotFoundError: no such adapter or encoder.
        ValueError: as `check_adapter`, or the folder holds something else.
    """
    config = check_adapter(folder, base)
    pipe = _pipeline(BASES[base], dtype)
    find_attach(config["method"])(pipe, str(folder))
    return LoadedAdapter(BASES[base], pipe, device)


def check_adapter(folder: str | Path, base: str) -> dict[str, Any]:
    """The config of an exported adapter, without its weights.

    Raises:
        FileNotFoundError: no such adapter.
        ValueError: it was made for another kind of base, changes the base itself, or its method is
            not installed or makes no text encoder.
    """
    folder = Path(folder)
    names = [f"{entry.name}.json" for entry in entry_points(group="crosslingual.methods")]
    own = [name for name in names if (folder / name).is_file()]  # of folders of whole pipelines
    config = load_artifact_config(folder, None, *own[:1])
    find_attach(config["method"])
    if config.get("add_embedding"):
        raise ValueError(
            f"{folder} changes a layer of SDXL besides its text, which no conditioning can do: use "
            "it in diffusers, or an adapter that was trained with --replace_add_embedding false"
        )
    if "width" in config:
        _check_widths(folder, (config["width"], config["pooled_width"]), base)
    return config


def _check_widths(folder: Path, given: Widths, base: str) -> None:
    """Refuses states that a kind of base does not take, and says which kind takes them."""
    if given == widths(BASES[base]):
        return
    fitting = [name for name, kind in BASES.items() if widths(kind) == given]
    remedy = f"choose {fitting[0]}" if fitting else "no base of this node takes the former"
    raise ValueError(
        f"{folder} gives states {_say(given)}, and {base} takes states "
        f"{_say(widths(BASES[base]))}: {remedy}, or name an adapter that was made for {base}"
    )


def _say(widths: Widths) -> str:
    pooled = f"with a pooled vector of {widths[1]}" if widths[1] else "without a pooled vector"
    return f"of width {widths[0]} {pooled}"


def widths(kind: Kind) -> Widths:
    """The widths of the states and of the pooled vector that a kind of base takes."""
    return _family(kind).widths(kind.config)[:2]


def find_attach(method: str) -> Callable[[Any, str], Any]:
    """The `attach(pipe, folder)` of an installed method.

    Raises:
        ValueError: it is not installed, or makes no text encoder for a pipeline.
    """
    modules = {entry.name: entry.module for entry in entry_points(group="crosslingual.methods")}
    if method not in modules:
        raise ValueError(
            f"the adapter is of the method {method!r}, which the Python of ComfyUI does not have: "
            f"pip install -e methods/{method}"
        )
    attach = getattr(importlib.import_module(modules[method]), "attach", None)
    if attach is None:
        raise ValueError(f"{method} gives no text states: name an adapter that generates pictures")
    return attach


def _family(kind: Kind) -> Family:
    (found,) = (family for family in FAMILIES if family.name == kind.family)
    return found


def _pipeline(kind: Kind, dtype: torch.dtype) -> Any:
    """A stock pipeline with a denoiser of that kind's config and nothing else."""
    family, pipeline_class = _family(kind), getattr(diffusers, kind.pipeline)
    parts = inspect.signature(pipeline_class).parameters.values()
    nothing = {part.name: None for part in parts if part.default is part.empty}
    with torch.random.fork_rng(devices=[]), quiet_libraries():  # the caller's
        denoiser = getattr(diffusers, family.model_class)(**kind.config).to(dtype)
        return pipeline_class(**nothing | {family.part: denoiser})
