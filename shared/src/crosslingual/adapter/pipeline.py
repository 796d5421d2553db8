"""An adapter in a diffusers pipeline: attach it, load a base with it, draw while it trains, and
`NAME generate`.

Attached, it works in every pipeline on the same kind of base (ControlNet, img2img, inpainting,
LoRA, LCM) as it is: those call their text encoder and take what it answers.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers.utils import ModelOutput

from crosslingual.adapter.artifact import load_artifact_config
from crosslingual.adapter.prompts import NoAdapter, PromptTokenizer, encode_texts
from crosslingual.adapter.settings import GenerateSettings
from crosslingual.adapter.text_encoder import (
    AdaptedTextEncoder,
    NotClip,
    build_adapter,
    mask_padding,
    refuse_start,
)
from crosslingual.data.text import dump_json
from crosslingual.folders import publish_folder
from crosslingual.frozen.base import Base
from crosslingual.frozen.denoiser import Denoiser
from crosslingual.frozen.encoders import (
    MultilingualEncoder,
    check_width,
    load_multilingual_encoder,
)
from crosslingual.frozen.families import call_options, family_of
from crosslingual.frozen.tokens import Cut, on_cut, report_cut

Attach = Callable[[Any, nn.Module, dict[str, Any]], Any]


def attach_adapter(
    pipe: Any, adapter: nn.Module, config: dict[str, Any], *, replaces_projection: bool = False
) -> Any:
    """Makes a stock pipeline read its prompts through an adapter and the encoder that its config
    names.

    Both are one text encoder, `AdaptedTextEncoder`. Or the adapter takes the place of the
    denoiser's own projection of text states, and the encoder that of the text encoder.

    Args:
        pipe: any diffusers pipeline on a base of the adapter's kind; changed in place.
        adapter: maps the encoder's states (B, L, C) to (states (B, L, D), pooled (B, P) or None).
        config: the adapter's: its `method` and encoder, the `width` of its states, its
            `pooled_width` or None, its `null_policy`, and what rebuilds it.
        replaces_projection: whether the adapter was trained in the projection's place.

    Returns:
        The pipeline.

    Raises:
        FileNotFoundError: the encoder cannot be reached.
        ValueError: the adapter was made for another kind of base, or another encoder; or the
            pipeline is offloaded already. It is as it was, then.
    """
    refuse_offloaded(pipe)
    family, _ = family_of(pipe)
    widths = config["width"], config["pooled_width"]
    check_widths(pipe, *widths, inner=replaces_projection)
    encoder = load_encoder(config)
    encoder.tokenizer.model_max_length = encoder.max_length
    has_prefix = bool(config.get("prompt_prefix"))
    if has_prefix:
        encoder.tokenizer = PromptTokenizer.of(
            encoder.tokenizer, config, cuts_mask=family.takes_mask
        )
    if replaces_projection:
        family.set_projection(pipe, adapter, encoder.width)
        if not has_prefix:
            return _place(pipe, encoder.model, encoder.tokenizer)
        adapter = NoAdapter()
    length = None if family.takes_mask else encoder.max_length
    text_encoder = AdaptedTextEncoder.of(encoder, adapter, config, length)
    zeros_for_empty = config["null_policy"] == "zeros"
    return _place(pipe, text_encoder, encoder.tokenizer, zeros_for_empty=zeros_for_empty)


def set_text_encoder(
    pipe: Any,
    text_encoder: nn.Module,
    tokenizer: Any,
    *,
    width: int,
    pooled_width: int | None = None,
) -> Any:
    """Puts a text encoder that answers like the base's own, and its tokenizer, in a pipeline, which
    is changed in place. The encoder, which gives states and perhaps a pooled vector of these
    widths, moves to the denoiser's device and dtype.

    Raises:
        ValueError: the widths are not the base's, or the pipeline is offloaded already.
    """
    refuse_offloaded(pipe)
    check_widths(pipe, width, pooled_width)
    if not isinstance(text_encoder, AdaptedTextEncoder):
        text_encoder.text_model = NotClip()
        text_encoder.register_forward_pre_hook(_mask_padding, with_kwargs=True)
        text_encoder.register_forward_hook(_name_states)
    return _place(pipe, text_encoder, tokenizer)


def _mask_padding(module: nn.Module, args: tuple, named: dict[str, Any]) -> tuple[tuple, dict]:
    """Gives a text encoder of transformers a mask without padding, as the drop-in makes one."""
    ids = args[0] if args else named["input_ids"]
    given = args[1] if len(args) > 1 else named.pop("attention_mask", None)
    mask = mask_padding(ids, given, module.config.pad_token_id)
    return (ids, mask, *args[2:]), {n: v for n, v in named.items() if n != "input_ids"}


def _name_states(_module: nn.Module, _inputs: tuple, output: Any) -> None:
    """Gives the states the name that they have in CLIP's answer: an XLM-R for token classification,
    such as AltDiffusion m9's, calls them logits.
    """
    if isinstance(output, ModelOutput) and "last_hidden_state" not in output:
        output.last_hidden_state = output[0]


def _refuse_start(module: nn.Module, args: tuple, named: dict[str, Any]) -> None:
    """Has a text encoder of transformers refuse what the drop-in refuses by itself."""
    refuse_start(module.config, args[0] if args else named["input_ids"])


def refuse_offloaded(pipe: Any) -> None:
    """Refuses, by a ValueError, a pipeline whose parts move between devices: a text encoder that
    comes now would not. What changes a pipeline asks this first.
    """
    _, denoiser = family_of(pipe)
    if hasattr(denoiser, "_hf_hook") and getattr(pipe, "hf_device_map", None) is None:
        raise ValueError(
            "the pipeline's parts are moved between devices already: attach first, and call "
            "enable_model_cpu_offload then"
        )


def _place(
    pipe: Any, text_encoder: nn.Module, tokenizer: Any, *, zeros_for_empty: bool = False
) -> Any:
    family, denoiser = family_of(pipe)
    placed = text_encoder.to(denoiser.device, denoiser.dtype)
    if denoiser.dtype == torch.float16:
        _keep_fp32(placed)
    family.set_text(pipe, placed, tokenizer, zeros_for_empty=zeros_for_empty)
    if not isinstance(placed, AdaptedTextEncoder) and hasattr(placed.config, "refused_start"):
        placed.register_forward_pre_hook(_refuse_start, with_kwargs=True)
    if hasattr(pipe, "load_lora_into_text_encoder"):
        pipe.load_lora_into_text_encoder = _name_text_lora
    if isinstance(placed, AdaptedTextEncoder):
        pipe.enable_sequential_cpu_offload = _refuse_sequential_offload
    return pipe


def _refuse_sequential_offload(*_: Any, **__: Any) -> NoReturn:
    """Takes the place of a pipeline's own, which moves each layer when it is called. Slots that
    share an encoder would move its layers twice, and an adapter that reads a layer's weights
    without calling it would find them absent.
    """
    raise ValueError(
        "an adapter's text encoder does not move layer by layer: call enable_model_cpu_offload, or "
        "encode prompts first and draw from prompt_embeds with a pipeline without the adapter"
    )


def _name_text_lora(
    state_dict: dict[str, Tensor], *_: Any, prefix: str | None = None, **__: Any
) -> None:
    """Takes the place of a pipeline's own, which looks for CLIP's layers in the text encoder."""
    prefix = prefix or "text_encoder"
    count = sum(name.startswith(f"{prefix}.") for name in state_dict)
    if count:
        warnings.warn(
            f"{count} tensors of this LoRA file belong to {prefix}, which the adapter replaced: "
            "they are left out, and the file's other tensors are applied",
            stacklevel=3,
        )


def _keep_fp32(text_encoder: nn.Module) -> None:
    """Puts back in fp32 what overflows in fp16 (a layer of each T5 block), as transformers does
    when it loads such a model, and `to` does not.
    """
    for model in text_encoder.modules():
        names = getattr(model, "_keep_in_fp32_modules", None) or ()
        for name, module in model.named_modules():
            if name.rsplit(".", 1)[-1] in names:
                module.float()


def check_widths(pipe: Any, width: int, pooled_width: int | None, *, inner: bool = False) -> None:
    """Refuses, by a ValueError, text states that a pipeline's denoiser cannot take; with `inner`,
    after its own projection of them.
    """
    family, denoiser = family_of(pipe)
    taken, wanted_pooled, inner_width = family.widths(denoiser.config)
    pairs = (width, pooled_width), (inner_width if inner else taken, wanted_pooled)
    if pairs[0] != pairs[1]:
        given, taken = (
            f"width {states} "
            + (f"with a pooled vector of width {pooled}" if pooled else "without a pooled vector")
            for states, pooled in pairs
        )
        raise ValueError(
            f"the adapter gives states of {given}, but this {type(denoiser).__name__} takes "
            f"{taken}: use the adapter's base"
        )


def load_encoder(config: dict[str, Any]) -> MultilingualEncoder:
    """The frozen encoder that an adapter was trained on, as its config names it.

    Raises:
        FileNotFoundError: it cannot be reached.
        ValueError: its states are of another width than the adapter reads.
    """
    name = config["text_encoder"]
    encoder = load_multilingual_encoder(name, config["text_encoder_revision"], config["max_length"])
    check_width(name, encoder.width, config["encoder_width"])
    return encoder


def load_adapted(
    adapter: nn.Module,
    config: dict[str, Any],
    base: str | None = None,
    attach: Attach = attach_adapter,
) -> Any:
    """The stock pipeline of the adapter's base, or of another `base` of the same kind, with the
    adapter attached by the method's own `attach`.
    """
    revision = config["base_revision"] if base is None else None
    pipe = Base.open(base or config["base"], revision).load_pipeline(with_text=False)
    return attach(pipe, adapter, config)


def draw(
    base: Base,
    denoiser: Denoiser | None,
    adapter: nn.Module,
    config: dict[str, Any],
    prompts: list[str],
    seed: int = 0,
    attach: Attach = attach_adapter,
) -> Image.Image:
    """A strip of pictures of an adapter in training, one for each prompt. A copy of the adapter is
    attached, by the method's own `attach`, since attaching freezes. The `denoiser` that training
    holds is not loaded twice; None where it holds none.
    """
    copy = build_adapter(config)
    copy.load_state_dict(adapter.state_dict())
    parts = {} if denoiser is None else {"denoiser": denoiser.model}
    pipe = base.load_pipeline(with_text=False, **parts).to(next(adapter.parameters()).device)
    with base.family.keep_projection(pipe.components[base.family.part]):
        return draw_strip(attach(pipe, copy, config), prompts, config["guidance_scale"], seed)


def draw_strip(pipe: Any, prompts: list[str], guidance_scale: float, seed: int = 0) -> Image.Image:
    """Pictures of 20 steps side by side, one for each prompt."""
    pictures = pipe(
        prompts,
        num_inference_steps=20,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed),
        **call_options(pipe),
    ).images
    return Image.fromarray(np.hstack([np.asarray(picture) for picture in pictures]))


@torch.no_grad()
def encode_prompts(
    encoder: MultilingualEncoder,
    adapter: nn.Module,
    prompts: list[str],
    negative_prompts: list[str] | None = None,
    config: dict[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Keyword arguments for a pipeline's call: `prompt_embeds`, `negative_prompt_embeds` and, where
    the adapter gives a pooled vector, those of both.

    Neither encoder nor adapter is needed afterwards, so that sampling can do without their memory.
    """
    result = {}
    for prefix, texts in (("", prompts), ("negative_", negative_prompts or [""] * len(prompts))):
        states = encode_texts(encoder, texts, config or {}, negative=bool(prefix))
        states, pooled = adapter(states.to(next(adapter.parameters()).dtype))
        result[f"{prefix}prompt_embeds"] = states
        if pooled is not None:
            result[f"{prefix}pooled_prompt_embeds"] = pooled
    return result


def write_pictures(
    settings: GenerateSettings,
    load_pipeline: Callable[[str, str | None], Any],
    read_config: Callable[[str], dict[str, Any]] = load_artifact_config,
) -> Path:
    """Writes pictures in GenEval's layout: for each prompt a folder such as OUT/00000 with
    metadata.jsonl and samples/0000.png. OUT appears whole, in place of an earlier call's pictures.

    Args:
        settings: of the verb.
        load_pipeline: the method's own, of an adapter's folder and a base or None.
        read_config: gives an adapter's config, which recommends a `guidance_scale`.

    Raises:
        ValueError: neither an adapter nor a base is named, or OUT holds other files.
    """

    def fill(folder: Path) -> None:
        _draw_prompts(folder, settings, load_pipeline, read_config)

    publish_folder(settings.output_dir, fill, kind="pictures")
    output_dir = Path(settings.output_dir)
    for path in sorted(output_dir.glob("*/samples/*.png")):
        print(path)
    return output_dir


def _draw_prompts(
    output_dir: Path,
    settings: GenerateSettings,
    load_pipeline: Callable[[str, str | None], Any],
    read_config: Callable[[str], dict[str, Any]],
) -> None:
    guidance_scale = settings.guidance_scale
    if settings.adapter is not None:
        pipe = load_pipeline(settings.adapter, settings.pretrained_model_name_or_path)
        if guidance_scale is None:
            guidance_scale = read_config(settings.adapter)["guidance_scale"]
    elif settings.pretrained_model_name_or_path is not None:
        pipe = Base.open(settings.pretrained_model_name_or_path).load_pipeline()
    else:
        raise ValueError(
            "give --adapter, an exported folder, or --pretrained_model_name_or_path for a bare base"
        )
    if torch.cuda.is_available():
        pipe = pipe.to("cuda")
    options = {"height": settings.height, "width": settings.width, "guidance_scale": guidance_scale}
    options |= {"negative_prompt": settings.negative_prompt}
    options = {name: value for name, value in options.items() if value is not None}
    options |= call_options(pipe)
    for number, prompt in enumerate(settings.prompt):
        folder = output_dir / f"{number:05d}"
        samples = folder / "samples"
        samples.mkdir(parents=True)
        cuts: dict[str, Cut] = {}
        with report_cut(pipe), on_cut(lambda cut, cuts=cuts: cuts.setdefault(cut.text, cut)):
            pictures = pipe(
                prompt,
                num_inference_steps=settings.num_inference_steps,
                num_images_per_prompt=settings.num_images_per_prompt,
                generator=torch.Generator().manual_seed(settings.seed),
                **options,
            ).images
        for cut in cuts.values():
            print(f"prompt {number}: {cut}", file=sys.stderr)
        for index, picture in enumerate(pictures):
            picture.save(samples / f"{index:04d}.png")
        metadata = {"prompt": prompt, "adapter": settings.adapter, "seed": settings.seed}
        line = dump_json(metadata) + "\n"
        (folder / "metadata.jsonl").write_text(line, encoding="utf-8")
