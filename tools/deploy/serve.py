"""An exported adapter behind HTTP: pictures, and prompt embeddings for a server of diffusers.

    cd tools/deploy
    METHOD=pea EXPORT=../../runs/pea/adapter OMP_NUM_THREADS=1 uvicorn --factory serve:start

An example to copy and to change; ../deploy.md gives the reasons.
"""

import asyncio
import io
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from safetensors.torch import save

from crosslingual.adapter.artifact import load_artifact_config
from crosslingual.folders import check_folder, read_mark
from crosslingual.frozen.families import call_options
from crosslingual.frozen.tokens import Cut, on_cut, report_cut

EMBEDS = "prompt_embeds negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds"


class Prompt(BaseModel):
    """What a client sends."""

    prompt: str = Field(min_length=1, max_length=2000)
    num_inference_steps: int = Field(default=20, ge=1, le=50)
    seed: int = Field(default=0, ge=0, lt=2**31)


def load(method: str, export: str) -> tuple[Any, dict[str, Any]]:
    """The pipeline and the config of a folder that `METHOD export` wrote and nobody changed."""
    folder = Path(export)
    if not (read_mark(folder) or {}).get("files"):
        raise ValueError(f"{export} has no crosslingual.json: serve what `{method} export` wrote")
    check_folder(folder)
    config_name = "altdiffusion.json" if method == "altdiffusion" else "config.json"
    config = load_artifact_config(folder, method, config_name)
    pipe = import_module(f"{method}.pipeline").load_pipeline(export)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu"), config


def create_app(pipe: Any, config: Mapping[str, Any], most_waiting: int = 8) -> FastAPI:
    """The server: it works on one request at a time, `most_waiting` wait, and more are refused."""
    app, turn = FastAPI(docs_url=None, redoc_url=None, max_body_size=2**15), asyncio.Lock()
    health = {"base": config["base"], "languages": config["languages"], "num_requests": 0}

    def draw(request: Prompt) -> bytes:
        options = {"guidance_scale": config["guidance_scale"], **call_options(pipe)}
        options["num_inference_steps"] = request.num_inference_steps
        noise = torch.Generator().manual_seed(request.seed)
        file = io.BytesIO()
        pipe(request.prompt, generator=noise, **options).images[0].save(file, "png")
        return file.getvalue()

    def encode(request: Prompt) -> bytes:
        encoded = pipe.encode_prompt(
            request.prompt,
            device=pipe.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
        )
        named = zip(EMBEDS.split(), encoded, strict=False)  # without pooled vectors there are two
        return save({name: tensor.contiguous() for name, tensor in named})

    def work(what: Callable[[Prompt], bytes], request: Prompt) -> tuple[bytes, int]:
        cuts: list[Cut] = []
        with report_cut(pipe), on_cut(cuts.append):
            return what(request), sum(cut.num_lost for cut in cuts)

    async def answer(what: Callable[[Prompt], bytes], request: Prompt, kind: str) -> Response:
        if health["num_requests"] > most_waiting:
            raise HTTPException(503, "too many requests wait", {"Retry-After": "10"})
        health["num_requests"] += 1
        try:
            async with turn:
                body, num_cut = await asyncio.to_thread(work, what, request)
        finally:
            health["num_requests"] -= 1
        return Response(body, media_type=kind, headers={"X-Tokens-Cut": str(num_cut)})

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Any, error: RequestValidationError) -> Response:
        return Response(error.errors()[0]["msg"], 422)  # FastAPI's own repeats the prompt

    @app.get("/health")
    async def tell_health() -> dict[str, Any]:
        return health

    @app.post("/generate")
    async def generate(request: Prompt) -> Response:
        return await answer(draw, request, "image/png")

    @app.post("/encode")
    async def encode_prompt(request: Prompt) -> Response:
        return await answer(encode, request, "application/octet-stream")

    return app


def start() -> FastAPI:
    """What uvicorn calls, once a process."""
    return create_app(*load(os.environ["METHOD"], os.environ["EXPORT"]))
