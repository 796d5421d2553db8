"""`mulan` verbs in forked processes: `crosslingual_worlds.testing.processes`, with mulan imported."""

from deepspeed.runtime.zero import stage_1_and_2  # noqa: F401, imported once for all the forks
from diffusers import (  # noqa: F401
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer, XLMRobertaModel  # noqa: F401

import mulan.cli
import mulan.evaluate
import mulan.export
import mulan.features
import mulan.generate
import mulan.info
import mulan.train
from crosslingual_worlds.testing.processes import serve_verbs

if __name__ == "__main__":
    serve_verbs("mulan", mulan.cli.main, [mulan.train])
