"""Writes an adapter's folder, reads it back, and starts a run from it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter import artifact
from crosslingual.frozen.base import Base, Denoiser
from crosslingual.frozen.encoders import encoder_shape
from crosslingual.frozen.weights import locate
from mulan.method import build_adapter
from mulan.settings import TrainSettings

CARD = """\
A MuLan adapter: {count:,} parameters between the frozen encoder `{text_encoder}` and the frozen
base `{base}` (MuLan, arXiv 2412.01271; variant {variant}). The languages that trained are listed
above; the encoder's other languages come without training, as far as it is aligned across them.

```python
{import_base}
import mulan

pipe = {load_base}
mulan.attach(pipe, "this/folder")
pipe("..."{call}).images[0]
```
"""
NO_ZEROS = "null_policy zeros is SDXL's: stock pipelines of other bases encode ''"
SHAPE = (
    "variant family encoder_width width pooled_width num_queries num_heads num_layers text_encoder"
)


def check_alignment(settings: TrainSettings) -> None:
    """Rejects an alignment that the base or the features do not support.

    Raises:
        ValueError: with the setting to change.
    """
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    replaces_projection = base.family.projection is not None
    if replaces_projection and (settings.alignment != "image" or settings.english_states):
        raise ValueError(
            f"on {base.id} the adapter replaces the denoiser's projection of captions and is "
            "trained through pictures alone: use --alignment image --english_states false"
        )
    if settings.alignment != "image" and not settings.english_states:
        raise ValueError(
            f"alignment {settings.alignment} reads the English encoder's states: use "
            "--english_states true"
        )


def adapter_config(settings: TrainSettings) -> dict[str, Any]:
    """Builds the adapter's config.json: its shape, its base and its encoder.

    Raises:
        ValueError: settings contradict each other.
    """
    check_alignment(settings)
    base = Base.open(settings.pretrained_model_name_or_path, settings.revision)
    text, replaces_projection = base.text, base.family.projection is not None
    # The published order: the second encoder's width first.
    split_widths = list(reversed(text.part_widths)) if len(text.part_widths) > 1 else None
    if settings.null_policy == "zeros" and not base.family.can_zero_empty:
        raise ValueError(NO_ZEROS)
    if settings.query_width and (split_widths or replaces_projection):
        raise ValueError(
            f"query_width is for bases with one sequence of states and no projection of them, and "
            f"{base.id} is of the family {base.family.name}: leave it out"
        )
    if settings.replace_add_embedding and not (text.added_embedding and settings.has_pictures):
        raise ValueError(
            "replace_add_embedding trains a layer of SDXL through pictures: use an SDXL base and "
            "--alignment image or both, or --replace_add_embedding false"
        )
    widths = split_widths or [settings.query_width or text.inner_width]
    if settings.pool == "attention":
        widths = [*widths, text.pooled_width or 0]
    if not replaces_projection and any(width % settings.num_heads for width in widths):
        raise ValueError(f"num_heads {settings.num_heads} does not divide the base's {widths}")
    encoder_width, longest = encoder_shape(settings.text_encoder, settings.text_encoder_revision)
    config = {
        "method": "mulan",
        "variant": settings.variant,
        "family": base.family.name,
        "width": text.inner_width,
        "pooled_width": text.pooled_width,
        "split_widths": split_widths,
        "query_width": settings.query_width,
        "replaces_projection": replaces_projection,
        "encoder_width": encoder_width,
        "num_queries": settings.num_queries,
        "num_memory": settings.num_memory,
        "num_heads": settings.num_heads,
        "num_layers": settings.num_layers,
        "pool": settings.pool,
        "pool_input_width": encoder_width,
        "add_embedding": list(text.added_embedding) if settings.replace_add_embedding else None,
        "max_length": settings.max_length or longest,
        "null_policy": settings.null_policy,
        "base": base.location,
        "base_revision": base.revision,
        "text_encoder": locate(settings.text_encoder),
        "text_encoder_revision": settings.text_encoder_revision,
        "languages": [*_languages_before(settings), *settings.languages],
        "guidance_scale": settings.guidance_scale,
    }
    if base.family.adapted_options:
        config["call_options"] = dict(base.family.adapted_options)
    with torch.device("meta"):  # refuses what the form cannot do, before anything is loaded
        build_adapter(config)
    return config


def _languages_before(settings: TrainSettings) -> list[str]:
    """The languages that a seed adapter already has, except those that train."""
    if settings.variant != "seed" or settings.init_adapter is None:
        return []
    before = artifact.load_artifact_config(settings.init_adapter, "mulan")["languages"]
    return [language for language in before if language not in settings.languages]


def save_adapter(
    state: dict[str, Tensor],
    config: dict[str, Any],
    folder: str | Path,
    results: list[dict] = (),
    transformer: nn.Module | None = None,
) -> Path:
    """Writes config.json, model.safetensors and the model card, which tabulates `results`; and a
    whole `transformer` that replaces the base's.
    """
    add = None
    if transformer is not None:
        config = {**config, "has_transformer": True}

        def add(partial: Path) -> None:
            transformer.save_pretrained(partial / "transformer")

    num_parameters = sum(tensor.numel() for tensor in state.values())
    card = artifact.model_card("MuLan adapter", CARD, config, count=num_parameters, results=results)
    return artifact.save_artifact(folder, state=state, config=config, card=card, add=add)


def load_adapter(
    folder: str | Path, language: str | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Reads an exported adapter, frozen, and its config.

    Args:
        folder: the adapter's folder.
        language: language whose weights a seed adapter uses; its first one if None.

    Raises:
        FileNotFoundError, ValueError: as `crosslingual.adapter.artifact.load_adapter`, or the
            adapter has no weights for the language.
    """
    adapter, config = artifact.load_adapter(
        folder, "mulan", lambda config: build_adapter({**config, "language": language})
    )
    if language is not None and config["variant"] != "seed":
        raise ValueError(
            f"{folder} has one set of weights for all languages: leave out the language"
        )
    if config.get("has_transformer"):
        config["transformer"] = str(Path(folder).resolve() / "transformer")
    return adapter, {**config, "language": language}


def start_adapter(
    settings: TrainSettings,
    config: dict[str, Any],
    denoiser: Denoiser | None = None,
    memory: Tensor | None = None,
) -> nn.Module:
    """Builds a new adapter, or loads `init_adapter`.

    Args:
        settings: settings of the run; a seed adapter's languages outside `languages` are frozen.
        config: the adapter's config.
        denoiser: its added embedding initialises the replacement, which then takes its place.
        memory: sentence states of `num_memory` samples, from `data.support_memory`.

    Raises:
        FileNotFoundError, ValueError: `init_adapter` does not exist or has another shape.
    """
    torch.manual_seed(settings.seed)
    adapter = build_adapter(config)
    if config["add_embedding"] and denoiser is not None:
        adapter.add_embedding.load_state_dict(denoiser.model.add_embedding.state_dict())
        denoiser.model.add_embedding = adapter.add_embedding
    if settings.init_adapter is not None:
        _load_start(adapter, settings.init_adapter, config)
    if memory is not None:
        adapter.memory.copy_(memory)
    if config["variant"] == "seed":
        for language, layers in zip(config["languages"], adapter.languages, strict=True):
            layers.requires_grad_(language in settings.languages)
    return adapter


def _load_start(adapter: nn.Module, folder: str, config: dict[str, Any]) -> None:
    """Loads an exported adapter's tensors; each language's go to its index in the new adapter."""
    before, config_before = load_adapter(folder)
    if prefix := config_before.get("prompt_prefix"):
        raise ValueError(
            f"init_adapter {folder} reads prompts after the words {prefix!r}, and training reads "
            "them as they are: import it once more with --prompt_prefix ''"
        )
    for name in SHAPE.split():
        if config_before[name] != config[name]:
            raise ValueError(
                f"init_adapter {folder} has {name} {config_before[name]!r} and this run "
                f"{config[name]!r}: give the run the adapter's"
            )
    state = before.state_dict()
    if config["variant"] == "seed":
        state = {}
        for language, layers in zip(config_before["languages"], before.languages, strict=True):
            place = config["languages"].index(language)
            state |= layers.state_dict(prefix=f"languages.{place}.")
    artifact.load_strict(adapter, {**adapter.state_dict(), **state})


def frozen_tensors(adapter: nn.Module) -> dict[str, Tensor]:
    """Copies what an adapter holds and does not train: the other languages of a seed adapter, and
    the memory.
    """
    named = [*adapter.named_parameters(), *adapter.named_buffers()]
    return {name: each.detach().clone() for name, each in named if not each.requires_grad}
