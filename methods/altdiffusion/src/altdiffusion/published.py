"""The authors' AltDiffusion, in diffusers' old layout, as a pipeline that stock diffusers loads."""

import inspect
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from altdiffusion.artifact import save_pipeline
from altdiffusion.settings import ImportSettings
from altdiffusion.text.encoder import (
    LINEAR,
    SHAPE,
    TextEncoder,
    new_published,
    tell_diffusers,
)
from crosslingual.adapter.artifact import load_strict, read_state_dict
from crosslingual.files import read_fields
from crosslingual.frozen.forms import is_computed, new_name
from crosslingual.frozen.weights import locate, open_tokenizer, quiet_libraries

LANGUAGES = {
    "-m18": "ar de en es fr hi it ja ko nl pl pt ru th tr uk vi zh",
    "-m9": "ar en es fr it ja ko ru zh",
    "AltDiffusion": "en zh",  # the first release
}
"""What the authors' models read, by how their names end."""
PRE = ("transformation_pre.weight", "transformation_pre.bias")  # of m18 alone
PUBLISHED = ("AltDiffusionPipeline", "AltDiffusionImg2ImgPipeline")


def import_published(settings: ImportSettings) -> Path:
    """Converts the authors' AltDiffusion, a folder in diffusers' old layout, to a stock
    `StableDiffusionPipeline`. What it leaves out is printed: parts that no picture needs.

    Raises:
        FileNotFoundError: there is no such folder or hub entry, or it lacks a file.
        ValueError: it is another pipeline, or its tensors are not AltDiffusion's.
    """
    import diffusers

    folder = _published_folder(settings)
    index = read_fields(folder / "model_index.json", {"_class_name": str}, "copy it again")
    if index["_class_name"] not in PUBLISHED:
        raise ValueError(
            f"{settings.input} is a {index['_class_name']}, and this verb reads the authors' "
            f"{PUBLISHED[0]}; `altdiffusion generate` draws with what `altdiffusion export` wrote"
        )
    parts = {
        "unet": _read_model(diffusers.UNet2DConditionModel, folder / "unet", settings),
        "vae": _read_model(diffusers.AutoencoderKL, folder / "vae", settings),
        "scheduler": _read_scheduler(folder / "scheduler"),
    }
    encoder, left = _read_text(folder, settings)
    print(f"left out, since no picture needs it: {left}safety_checker", file=sys.stderr)
    with quiet_libraries():
        pipe = diffusers.StableDiffusionPipeline(
            text_encoder=encoder.model,
            tokenizer=encoder.tokenizer,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **parts,
        )
    config = {
        "method": "altdiffusion",
        "stage": "imported",
        "base": locate(settings.input),
        "base_revision": settings.revision,
        "languages": settings.languages or _languages(settings.input, encoder),
        "resolution": 8 * pipe.unet.config.sample_size,
        "guidance_scale": settings.guidance_scale,
        "all_attn2": None,
        "lora_rank": 0,
    }
    return save_pipeline(pipe, config, settings.output_dir)


def _languages(name: str, encoder: TextEncoder) -> list[str]:
    """The languages of the authors' model: m18's form tells it, and its name the others."""
    is_m18 = type(encoder.model).__name__ != LINEAR
    name = "-m18" if is_m18 else Path(locate(name)).name
    return next((known for end, known in LANGUAGES.items() if name.endswith(end)), "").split()


def _published_folder(settings: ImportSettings) -> Path:
    """The folder of the authors' pipeline, downloaded without the parts that are not read."""
    folder = Path(settings.input)
    if folder.is_file():
        raise ValueError(
            f"{folder} is one file, as FlagAI's own code writes it; this verb reads the folder of "
            "diffusers' layout, such as BAAI/AltDiffusion-m18 on the hub"
        )
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    patterns = [f"{part}/*" for part in ("unet", "vae", "scheduler", "text_encoder", "tokenizer")]
    try:
        return Path(
            snapshot_download(
                settings.input,
                revision=settings.revision,
                allow_patterns=["model_index.json", *patterns],
            )
        )
    except (OSError, ValueError) as error:  # every error of the hub is one of these
        raise FileNotFoundError(
            f"no folder and no reachable hub entry named {settings.input!r}"
        ) from error


def _read_tensors(folder: Path, settings: ImportSettings, *stems: str) -> dict[str, Tensor]:
    """The tensors of a part, in fp32: of safetensors, or of a pickle of tensors alone."""
    middle = f".{settings.variant}" if settings.variant else ""
    names = [f"{stem}{middle}.{end}" for end in ("safetensors", "bin") for stem in stems]
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        there = sorted(path.name for path in folder.glob("*model*"))
        raise FileNotFoundError(
            f"{folder} holds none of {', '.join(names)}, but {', '.join(there) or 'no weights'}"
            + ("; name the --variant of these files" if there else "")
        )
    return read_state_dict(found[0])


def _read_model(model_class: Any, folder: Path, settings: ImportSettings) -> nn.Module:
    """UNet or VAE, with the names that their classes have today."""
    config = read_fields(folder / "config.json", {}, "copy it again")
    known = inspect.signature(model_class.__init__).parameters
    with torch.random.fork_rng(devices=[]), quiet_libraries():  # the caller's
        model = model_class(**{name: value for name, value in config.items() if name in known})
    state = _read_tensors(folder, settings, "diffusion_pytorch_model")
    model._fix_state_dict_keys_on_load(state)  # attention of old VAEs
    _load(model, state, folder)
    return model.eval()


def _load(model: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    try:
        load_strict(model, state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _read_scheduler(folder: Path) -> Any:
    import diffusers

    config = read_fields(folder / "scheduler_config.json", {"_class_name": str}, "copy it again")
    scheduler = getattr(diffusers, config["_class_name"], None)
    if not (isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)):
        raise ValueError(f"{folder} is no scheduler of diffusers: {config['_class_name']}")
    return scheduler.from_config(config)


def _read_text(folder: Path, settings: ImportSettings) -> tuple[TextEncoder, str]:
    """The text encoder as a class of transformers that gives the same states, and the parts of it
    that are left out.

    m18's UNet reads `transformation_pre(pre_LN(h))` of the last layer but one: an
    `AltCLIPTextModel` with one layer fewer. m9's reads `transformation(h)` of the last layer: an
    XLM-R with a linear layer.
    """
    place = folder / "text_encoder"
    fields = {"project_dim": int, "has_pre_transformation": bool | None}
    config = read_fields(place / "config.json", fields, "copy it again")
    state = _read_tensors(place, settings, "pytorch_model", "model")
    state = {new_name(n): t for n, t in state.items() if not is_computed(n)}
    shape = {name: config[name] for name in (*SHAPE, "project_dim") if name in config}
    is_told = config.get("has_pre_transformation")
    has_pre = PRE[0] in state if is_told is None else is_told
    wrong = [name for name in PRE if (name in state) != has_pre]
    if wrong and is_told is not None:
        raise ValueError(
            f"{place}: config.json says has_pre_transformation {str(is_told).lower()}, and the "
            f"weights {'lack' if is_told else 'have'} {', '.join(wrong)}: copy both again"
        )
    if has_pre:
        last = shape["num_hidden_layers"] - 1
        shape["num_hidden_layers"] = last
        dropped = [f"roberta.encoder.layers.{last}.", "transformation."]
        names = {"transformation_pre.": "transformation."}
    else:
        shape["id2label"] = {number: str(number) for number in range(config["project_dim"])}
        dropped = ["pre_LN."]  # of another vector
        names = {"transformation.": "classifier.", "encoder.layers.": "encoder.layer."}
    dropped.append("roberta.pooler.")
    kept = {}
    for name, tensor in state.items():
        if not name.startswith(tuple(dropped)):
            for old, new in names.items():
                name = name.replace(old, new)
            kept[name] = tensor
    with torch.random.fork_rng(devices=[]):  # the caller's
        model = new_published(shape, has_pre)
    _load(model, kept, place)
    tokenizer = open_tokenizer(str(folder / "tokenizer"))
    tokenizer.padding_side = "right"
    encoder = TextEncoder(model.eval(), tokenizer, min(77, int(tokenizer.model_max_length)))
    tell_diffusers(encoder)
    model.config.use_attention_mask = config.get("use_attention_mask", True)
    there = [part for part in dropped if any(name.startswith(part) for name in state)]
    return encoder, "".join(f"{part.rstrip('.')}, " for part in there)
