"""The settings of `crosslingual-bench generation`, their defaults by data set, and the prompts and
true pictures that they name.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crosslingual.cli.settings import nearest_name
from crosslingual.data.languages import LanguageCode
from crosslingual.worlds import World, find_worlds
from crosslingual_benchmarks.generation.prompts import PromptSet, mc18, read_prompts
from crosslingual_benchmarks.generation.prompts.mg18 import LANGUAGES, mg18
from crosslingual_benchmarks.generation.prompts.world import (
    mixed_prompts,
    reference_pictures,
    world_prompts,
)

PROG = "crosslingual-bench generation"
DATASETS = ("mg18", "mc18", "prompts")  # and each world that is installed
# MG-18's (arXiv 2308.09991), which does not say whose weights its OpenCLIP B/32 has
PUBLISHED_DEFAULTS = {
    "num_inference_steps": 50,
    "guidance_scale": 9.0,
    "resolution": 512,
    "clip": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "extractor": "inception-v3-compat",
}


@dataclass
class GenerationSettings:
    """Settings of `crosslingual-bench generation`.

    Attributes:
        method: an installed method's name, or base (the base as it is).
        dataset: an installed world such as testbed, mg18 (Crossmodal-3600), mc18 (our own culture
            prompts in its place) or prompts (a file of yours).
        path: folder that the method exported.
        base: base of the pipeline: hub id, folder or testbed:sd; the export's own if not given.
        prompt_language: language that the pipeline reads; english is the upper bound.
        arm: name of the arm in the results; if not given the method's, and for base as_is or
            english_upper_bound.
        languages: languages to test; all that the data set has if none are given.
        second_languages: languages that name the second thing of a world's prompts, in sentences of
            each of `languages`, and the other way round; without motifs, FID and KID.
        trained_languages: languages of the captions that the arm was trained on, for the results.
        root: folder of mg18's captions.jsonl and images/.
        prompts: file of the data set prompts.
        reference_dir: folder of true pictures for FID and KID; the data set's own if not given.
        use_references: measure FID and KID.
        output_dir: folder that gets generation.json and the pictures.
        num_prompts: prompts of a world (200 if not given) or of mg18 (all).
        num_motif_prompts: prompts of a world for each language's own motif.
        num_references: true pictures of a world.
        prompt_split: split of a world whose scenes are asked for: test; val to choose settings; or
            train, whose captions arms may have read.
        prompt_seed: seed of the choice of prompts in a world and mg18.
        num_inference_steps: steps of the sampler; 20 on testbed, 50 elsewhere if not given.
        guidance_scale: scale of classifier-free guidance; 3 on testbed, 9 elsewhere if not given.
        scheduler: ddim, or base for the pipeline's own, as bases of flow matching need it.
        resolution: edge of the pictures in pixels; 64 on testbed, 512 elsewhere if not given.
        mixed_precision: precision of the pipeline's weights: no (fp32), fp16 or bf16.
        batch_size: prompts at a time.
        clip: CLIP of the CLIP score and of the choice among captions; testbed:clip on testbed, an
            OpenCLIP B/32 elsewhere if not given.
        extractor: network of the features for FID and KID: a CLIP, or inception-v3-compat.
        num_bootstrap: resamplings for the 95 % intervals of means; 0 for none.
        num_fid_bootstrap: resamplings for FID and KID, each as slow as the distance; 0 for none.
        num_shown: pictures of a language on the sheets.
        seed: seed of the noise and of the resamplings.
    """

    method: str
    dataset: str
    path: str | None = None
    base: str | None = None
    prompt_language: Literal["native", "english"] = "native"
    arm: str | None = None
    languages: list[LanguageCode] = field(default_factory=list)
    second_languages: list[LanguageCode] = field(default_factory=list)
    trained_languages: list[LanguageCode] = field(default_factory=list)
    root: str | None = None
    prompts: str | None = None
    reference_dir: str | None = None
    use_references: bool = True
    output_dir: str = "results"
    num_prompts: int | None = None
    num_motif_prompts: int = 16
    num_references: int = 2000
    prompt_split: Literal["test", "val", "train"] = "test"
    prompt_seed: int = 0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: Literal["ddim", "base"] = "ddim"
    resolution: int | None = None
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    batch_size: int = 16
    clip: str | None = None
    extractor: str | None = None
    num_bootstrap: int = 1000
    num_fid_bootstrap: int = 100
    num_shown: int = 6
    seed: int = 0


def world_of(settings: GenerationSettings) -> World | None:
    """The world whose scenes are the prompts; None where the data set is not a world."""
    return find_worlds().get(settings.dataset)


def with_defaults(settings: GenerationSettings) -> GenerationSettings:
    """A copy with the defaults of its data set filled in.

    Raises:
        ValueError: no such data set, a setting that it does not take, or one that it needs.
    """
    name, world, known = settings.dataset, world_of(settings), (*find_worlds(), *DATASETS)
    if name not in known:
        near = nearest_name(name, known) or ";"
        raise ValueError(f"no data set {name!r}{near} there are {', '.join(known)}")
    needed = {"root": ("mg18",), "prompts": ("prompts",), "num_prompts": (*find_worlds(), "mg18")}
    for key, takers in needed.items():
        value = getattr(settings, key)
        if value is not None and name not in takers:
            raise ValueError(f"data set {name} takes no --{key}")
        if value is None and name in takers and key != "num_prompts":
            raise ValueError(f"data set {name} needs --{key}")
    if settings.prompt_split != "test" and not world:
        raise ValueError(f"data set {name} has no splits: leave out --prompt_split")
    if settings.second_languages and (not world or settings.prompt_language == "english"):
        raise ValueError(
            "prompts in two languages are those of a world in its own languages: leave out "
            f"--second_languages for --dataset {name} --prompt_language {settings.prompt_language}"
        )
    defaults = world_defaults(world) if world else PUBLISHED_DEFAULTS
    given = {key: value for key in defaults if (value := getattr(settings, key)) is not None}
    filled = dataclasses.replace(settings, **{**defaults, **given})
    if world and filled.resolution != defaults["resolution"]:
        edge = defaults["resolution"]
        raise ValueError(f"the judge of the {name} reads pictures of {edge} pixels alone")
    if filled.batch_size < 1 or filled.num_inference_steps < 1:
        raise ValueError("batch_size and num_inference_steps must be at least 1")
    return filled


def world_defaults(world: World) -> dict[str, Any]:
    """A world's defaults: the settings that its base draws well with, and its own CLIP."""
    names = ("num_inference_steps", "guidance_scale", "resolution")
    told = {name: getattr(world.evaluation, name) for name in names}
    return {
        **told,
        **dict.fromkeys(("clip", "extractor"), f"{world.name}:clip"),
        "num_prompts": 200,
    }


def load_prompt_set(settings: GenerationSettings) -> PromptSet:
    """The prompts that settings name; see the readers in `prompts` for their errors."""
    world = world_of(settings)
    if world and settings.second_languages:
        return mixed_prompts(
            world.name,
            settings.languages or world.languages,
            settings.second_languages,
            settings.num_prompts,
            split=settings.prompt_split,
            seed=settings.prompt_seed,
        )
    if world:
        return world_prompts(
            world.name,
            settings.languages or world.languages,
            settings.num_prompts,
            settings.num_motif_prompts,
            split=settings.prompt_split,
            seed=settings.prompt_seed,
        )
    if settings.dataset == "mg18":
        return mg18(
            settings.root,
            settings.languages or LANGUAGES,
            settings.num_prompts,
            seed=settings.prompt_seed,
            use_references=settings.use_references and settings.reference_dir is None,
        )
    if settings.dataset == "mc18":
        return mc18()
    path = Path(settings.prompts)
    prompts = read_prompts(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PromptSet(path.stem, prompts, {"prompt_set": digest[:12]})


def references_of(
    settings: GenerationSettings, prompt_set: PromptSet
) -> str | Sequence[Any] | None:
    """The true pictures for FID and KID: a folder, paths or pictures; None where there are none.

    Raises:
        ValueError: some general prompts name a photograph and others do not.
    """
    general = [prompt for prompt in prompt_set.prompts if prompt.culture is None]
    if not settings.use_references or settings.second_languages or not general:
        return None
    if settings.reference_dir is not None:
        return settings.reference_dir
    if world := world_of(settings):
        return list(reference_pictures(world.name, settings.num_references, settings.prompt_split))
    paths = [prompt.image for prompt in general if prompt.image is not None]
    if paths and len(paths) < len(general):
        raise ValueError(
            f"{len(general) - len(paths)} of {len(general)} general prompts of {prompt_set.name} "
            "name no image: name one for each, or give --use_references false"
        )
    return paths or None


def arm_of(settings: GenerationSettings) -> str:
    """The arm's name in the results."""
    if settings.arm is not None:
        return settings.arm
    is_english = settings.prompt_language == "english"
    if settings.method == "base":
        return "english_upper_bound" if is_english else "as_is"
    return settings.method + "_on_english" * is_english
