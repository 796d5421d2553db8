"""The settings of `crosslingual-bench play`; apart, so that `--help` loads no torch."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class PlaySettings:
    """Settings of `crosslingual-bench play`.

    Attributes:
        base: hub id, folder or WORLD:NAME of the base that draws; if not given that of most exports
            in --runs, or testbed:sd.
        exports: NAME=FOLDER of exported adapters, as pea=runs/pea/adapter; those in --runs that fit
            the base, the newest of each method, if none are given.
        runs: folder that is searched for exports, a translator and a comparison's page.
        translator: KIND:FOLDER that translates prompts into English, as mclip:runs/b/translation or
            transformers:NAME#de; one in --runs if not given.
        report: a comparison's report.html for the third tab; the newest in --runs, or else this
            repository's own, if not given.
        world: world whose test pictures are searched and whose captions are examples; the base's
            own if not given.
        num_pictures: test pictures that are searched, where the world does not say which.
        num_inference_steps: steps of the sampler for each picture; the world's, or 20.
        guidance_scale: strength of classifier-free guidance; the world's or the pipeline's own.
        resolution: edge of the pictures in pixels; the world's or the pipeline's own.
        mixed_precision: precision of the pipelines' weights: no (fp32), fp16 or bf16.
        max_batch_size: prompts of several people that a method draws at once; more take more
            memory. 10 with a world's base, or 1, if not given.
        server_name: address that the page is bound to; 0.0.0.0 lets other machines reach it.
        server_port: port of the page; 0 takes any that is free.
        max_waiting: requests that may wait; further ones are told that the queue is full.
    """

    base: str | None = None
    exports: list[str] = field(default_factory=list)
    runs: str = "runs"
    translator: str | None = None
    report: str | None = None
    world: str | None = None
    num_pictures: int = 200
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    resolution: int | None = None
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    max_batch_size: int | None = None
    server_name: str = "127.0.0.1"
    server_port: int = 7860
    max_waiting: int = 20
