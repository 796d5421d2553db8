"""A frozen diffusion base as one object: its shapes, its noise, its parts.

    base = Base.open("stabilityai/stable-diffusion-xl-base-1.0")
    base.text.width                                       # of the states that its denoiser takes
    noising = base.schedule(device=device)                # what a training step draws
    denoiser = base.load_denoiser(device, resolution=1024)
    denoiser.predict(noisy.latents, noisy.timesteps, Conditioning(states, pooled))

What differs between kinds of bases is answered by `frozen/families/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crosslingual.files import read_fields
from crosslingual.frozen.denoiser import Conditioning, Denoiser, Family, TextShape
from crosslingual.frozen.families import (
    find_family,
    refuse_multilingual,
    refuse_multilingual_id,
)
from crosslingual.frozen.schedule import Latents, Noising, Process
from crosslingual.frozen.shapes import published_shape
from crosslingual.frozen.tokens import report_cut
from crosslingual.frozen.weights import (
    load_frozen,
    locate,
    quiet_libraries,
    reading,
    resolve,
    weights_hash,
)

__all__ = ["Base", "Conditioning", "Denoiser", "TextEncoders"]

DENOISERS = ("unet", "transformer")  # what pipelines call the part that denoises
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
MODELS = (*DENOISERS, "vae", *TEXT_ENCODERS)


@dataclass(frozen=True)
class TextEncoders:
    """A base's own text encoders, frozen, as a stock pipeline without the rest."""

    family: Family
    pipe: Any

    def encode(self, prompts: list[str]) -> Conditioning:
        """What the base's denoiser sees of English prompts."""
        with report_cut(self.pipe):
            return self.family.encode(self.pipe, prompts)


class Base:
    """A frozen diffusion base: a diffusers pipeline in a folder, on the hub or in a world.

    Attributes:
        id: as it was given.
        revision: of the hub entry.
        denoiser_config: of its denoising model.
        family: what its kind of denoiser answers.
        process: how its latents become noise.
    """

    def __init__(self, id: str, revision: str | None):
        """Use `Base.open`, which reads a base's configs once."""
        self.id, self.revision = id, revision
        with reading(id, "base"):
            self.denoiser_config = self._denoiser_config()
            self.family = find_family(self.denoiser_config, id)
            self.process: Process = self.family.process(self.config("scheduler"), id)

    @staticmethod
    def open(id: str, revision: str | None = None) -> "Base":
        """A base by its name: a folder, a hub id, or WORLD:NAME such as `testbed:sd`. Only configs
        are read, and those of well-known bases need no network.

        Raises:
            FileNotFoundError: no such folder or hub entry, or it is no complete pipeline.
            ValueError: a kind of denoiser or a schedule that this code does not know, or a base
                that is multilingual already.
        """
        refuse_multilingual_id(id)
        return _open(id, locate(id), revision)

    @staticmethod
    def open_known(id: str) -> "Base | None":
        """The base if it is a folder or one whose shapes are embedded, or else None: no network is
        used.

        Raises:
            FileNotFoundError, ValueError: as `open`.
        """
        refuse_multilingual_id(id)
        is_known = any(published_shape(id, part) for part in DENOISERS)
        return Base.open(id) if is_known or Path(resolve(id)).is_dir() else None

    @property
    def location(self) -> str:
        """The id, or a local folder's absolute path, which holds wherever a command is called."""
        return locate(self.id)

    @cached_property
    def index(self) -> Mapping[str, Any]:
        """The pipeline's `model_index.json`: its class, and library and class of each part."""
        index = self._read("model_index.json")
        refuse_multilingual(str(index.get("_class_name")), self.id)
        known = (["diffusers", str], ["transformers", str], [None, type(None)])
        for part, source in index.items():
            if not isinstance(source, list | dict) or part == "safety_checker":  # never loaded
                continue
            if len(source) != 2 or [[*source][0], type([*source][1])] not in known:
                raise ValueError(
                    f"the model_index.json of {self.id} takes its {part} from {source}, which is "
                    "no class of diffusers or transformers; give another base"
                )
        return index

    def config(self, part: str) -> dict[str, Any]:
        """The config of a part such as `vae` or `scheduler`, without its weights.

        Raises:
            FileNotFoundError: the pipeline has no such part.
        """
        known = published_shape(self.id, part)
        if known is not None:
            return known
        if part == "pipeline":
            return dict(self.index)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return self._read(f"{part}/{name}")

    def _denoiser_config(self) -> dict[str, Any]:
        published = [part for part in DENOISERS if published_shape(self.id, part)]
        for part in published or DENOISERS:
            if published or part in self.index:
                return self.config(part)
        raise ValueError(
            f"{self.id} is a {self.index['_class_name']}, which has no part named "
            f"{' or '.join(DENOISERS)}: it is no base that this code can train on"
        )

    @cached_property
    def text(self) -> TextShape:
        """The text conditioning that the denoiser takes.

        Raises:
            ValueError: it takes more than noisy latents, as for inpainting.
        """
        taken, given = self.denoiser_config.get("in_channels"), self.latents.channels
        if taken not in (None, given * self.family.packing):
            raise ValueError(
                f"{self.id} denoises {taken} channels, and its latents have {given}: it reads a "
                "mask or a picture besides (inpainting, Fill, Control). Train on the base that it "
                "was made from; what trains there attaches to its pipelines"
            )
        with reading(self.id, "base"):
            return self.family.text(self.config)

    @cached_property
    def latents(self) -> Latents:
        """The VAE's latents."""
        with reading(self.id, "base"):
            return self.family.latents(self.config("vae"))

    def schedule(self, **options: Any) -> Noising:
        """What a training step draws; the options are `Noising`'s, `device` among them."""
        return Noising(self.process, self.latents, **options)

    def load_denoiser(
        self,
        device: torch.device,
        *,
        resolution: int,
        mixed_precision: str = "no",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        project_text: bool = True,
    ) -> Denoiser:
        """The denoiser, frozen, with its calls, for pictures of `resolution` pixels.

        Gradient checkpointing keeps fewer activations and computes them twice. Without
        `project_text` the denoiser's own projection of text states is taken away, for an adapter
        that replaces it and gives states of `text.inner_width`.
        """
        model = self.load_model().to(device, memory_format=torch.channels_last)
        if not project_text:
            self.family.drop_projection(model)
        if gradient_checkpointing:
            model.enable_gradient_checkpointing()
            model.train()  # checkpointing works in this mode only; no dropout in these models
        if compile:
            model.compile()
        return self.wrap_denoiser(model, resolution=resolution, mixed_precision=mixed_precision)

    def wrap_denoiser(
        self, model: Any, *, resolution: int, mixed_precision: str = "no"
    ) -> Denoiser:
        """A model of this base's shape, or the engine around it, with its calls."""
        return self.family.denoiser(model, resolution, mixed_precision)

    def load_model(self, folder: str | None = None) -> nn.Module:
        """The denoising model itself, frozen, on CPU, in fp32. Its weights come from the base, or
        from the `folder` of another pipeline or of such a model alone.
        """
        if folder is None:
            return self._load(self.family.part)
        model_class = _find_class("diffusers", self.family.model_class)
        is_pipeline = (Path(resolve(folder)) / "model_index.json").is_file()
        return load_frozen(model_class, folder, subfolder=self.family.part if is_pipeline else None)

    def denoiser_on_meta(self) -> nn.Module:
        """The denoising model without memory, for counting."""
        model_class = _find_class("diffusers", self.family.model_class)
        with reading(self.id, "base"), torch.device("meta"):
            return model_class.from_config(self.denoiser_config)

    def load_vae(self, device: torch.device) -> nn.Module:
        """The VAE, frozen."""
        return self._load("vae").to(device)

    def load_text(self, device: torch.device) -> TextEncoders:
        """The base's own text encoders, frozen."""
        pipe = self.load_pipeline(denoiser=None, vae=None)
        return TextEncoders(self.family, pipe.to(device))

    def load_pipeline(
        self, dtype: torch.dtype = torch.float32, *, with_text: bool = True, **parts: Any
    ) -> Any:
        """The whole base as the diffusers pipeline it names, every model frozen and strictly
        loaded. Without `with_text` it has no text encoders, for an adapter that takes their place.
        Further `parts` replace the base's own, or leave one out if None, by their names in the
        pipeline; `denoiser` names the one that denoises.
        """
        if "denoiser" in parts:
            parts[self.family.part] = parts.pop("denoiser")
        for part in MODELS:
            if part not in self.index or not self.index[part][0] or part in parts:
                continue
            is_left_out = part.startswith("text_encoder") and not with_text
            parts[part] = None if is_left_out else self._load(part, dtype)
        if "safety_checker" in self.index:
            parts |= {"safety_checker": None, "feature_extractor": None}
            parts["requires_safety_checker"] = False
        with reading(self.id, "pipeline"), quiet_libraries():
            pipe = _find_class("diffusers", self.index["_class_name"]).from_pretrained(
                resolve(self.id),
                revision=self.revision,
                dtype=dtype,
                trust_remote_code=False,
                **parts,
            )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def count_parameters(self, denoiser: nn.Module | None = None) -> dict[str, int]:
        """Parameters of `denoiser` and `vae`, from their configs alone. A `denoiser_on_meta` that
        is there already is not made again.
        """
        config = self.config("vae")
        with reading(self.id, "base"), torch.device("meta"):
            vae = _find_class("diffusers", config["_class_name"]).from_config(config)
        models = {"denoiser": denoiser or self.denoiser_on_meta(), "vae": vae}
        return {name: sum(p.numel() for p in m.parameters()) for name, m in models.items()}

    def weights_hash(self, *parts: str) -> str | None:
        """Identifies the weights of parts (names in the pipeline, or `denoiser`) of a base on this
        disk; None for a hub id, which its revision identifies.
        """
        names = (self.family.part if part == "denoiser" else part for part in parts)
        return weights_hash(self.id, tuple(names))

    def _load(self, part: str, dtype: torch.dtype = torch.float32) -> nn.Module:
        with reading(self.id, "base"):
            model_class = _find_class(*self.index[part])
        return load_frozen(
            model_class,
            self.id,
            subfolder=part,
            revision=self.revision,
            dtype=dtype,
        )

    def _read(self, name: str) -> dict[str, Any]:
        """A JSON file of the pipeline."""
        from huggingface_hub import hf_hub_download

        folder = Path(resolve(self.id))
        path = folder / name
        if folder.is_dir():
            if not path.is_file():
                raise FileNotFoundError(
                    f"{self.id} is no complete diffusers pipeline: it has no {name}"
                )
        else:
            try:
                path = Path(hf_hub_download(self.id, name, revision=self.revision))
            except (OSError, ValueError) as error:  # every error of the hub is one of these
                raise FileNotFoundError(
                    f"no folder and no reachable hub entry named {self.id!r} that has a {name}"
                ) from error
        return read_fields(path, {"_class_name": str | None}, "copy the base again")


@cache
def _open(id: str, location: str, revision: str | None) -> Base:
    """`location` tells a relative folder apart from one of the same name elsewhere."""
    return Base(id, revision)


def _find_class(library: str, name: str) -> type:
    """A class of diffusers or transformers, as model_index.json names them."""
    import diffusers
    import transformers

    found = getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
    if not isinstance(found, type):
        raise ValueError(f"{library}.{name} is no class")
    return found
