"""The pipeline of `crosslingual-bench generation`: how it is found, prepared and identified."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from crosslingual_benchmarks.generation.settings import GenerationSettings
from crosslingual_benchmarks.methods import find_method, installed_methods

BASE = "base"  # in the place of a method: the base as it is


def pipeline_of(method: str, path: str | None, base: str | None) -> Callable[[], Any]:
    """A function that loads a method's pipeline, or for `base` the base's own.

    Raises:
        ValueError: no such method, a method without a pipeline, or no path or base.
    """
    if method == BASE:
        if base is None or path is not None:
            raise ValueError(f"--method {BASE} takes --base, such as testbed:sd, and no --path")
        from crosslingual.frozen.base import Base

        return lambda: Base.open(base).load_pipeline()
    found = find_method(method)
    if found.load_pipeline is None:
        able = [name for name, other in installed_methods().items() if other.load_pipeline]
        raise ValueError(f"{found.name} draws no pictures; there are {', '.join([BASE, *able])}")
    if path is None:
        raise ValueError(f"give --path: what `{found.name} export` wrote")
    return lambda: found.load_pipeline(path, base)


def prepare_pipeline(pipe: Any, settings: GenerationSettings) -> Any:
    """Sets the sampler, the precision and the device of a pipeline, in place, and returns it.

    Raises:
        ValueError: DDIM for a pipeline that samples by flow matching.
    """
    import torch
    from diffusers import DDIMScheduler

    from crosslingual.frozen.schedule import DDPM_LIKE

    if settings.scheduler == "ddim":
        config = pipe.scheduler.config
        if type(pipe.scheduler).__name__ not in DDPM_LIKE or config.get("use_flow_sigmas"):
            raise ValueError(
                f"scheduler ddim is of diffusion, and this pipeline has a "
                f"{type(pipe.scheduler).__name__}, as for flow matching: give --scheduler base"
            )
        # register_modules reaches the pipeline inside of a wrapper; setting an attribute does not
        pipe.register_modules(scheduler=DDIMScheduler.from_config(pipe.scheduler.config))
    dtypes = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    dtype = dtypes[settings.mixed_precision]
    pipe.to("cuda" if torch.cuda.is_available() else "cpu", dtype)
    return pipe


def count_parameters(pipe: Any) -> int:
    """The number of parameters in all parts of a pipeline."""
    from torch import nn

    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def made_with(settings: GenerationSettings) -> dict[str, Any]:
    """The settings besides sampling and prompts that decide pictures. Folders are identified by
    the hash of their weights, wherever they are.
    """
    told = {name: getattr(settings, name) for name in ("method", "scheduler", "mixed_precision")}
    told["prompt_language"] = settings.prompt_language
    for name in ("path", "base"):
        value = getattr(settings, name)
        told[name] = value and (_weights_hash(value) or value)
    return told


def _weights_hash(name: str) -> str | None:
    """The hash of all safetensors below `FOLDER`, `KIND:FOLDER` or a world's model such as
    `testbed:sd`; None where there are none.
    """
    from crosslingual.frozen.weights import weights_hash
    from crosslingual.worlds import find_worlds, model_folder

    prefix, _, rest = name.partition(":")
    is_world = prefix in find_worlds() and not Path(rest).is_dir()
    for place in (model_folder(name),) if is_world else (name, rest):
        files = list(Path(place).rglob("*.safetensors")) if place and Path(place).is_dir() else []
        if files:
            subfolders = sorted({str(path.parent.relative_to(place)) for path in files})
            return weights_hash(str(place), tuple(subfolders))
    return None
