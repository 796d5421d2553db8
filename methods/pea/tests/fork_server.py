"""`pea` verbs in forked processes: `crosslingual_worlds.testing.processes`, with pea imported."""

from deepspeed.runtime.zero import stage_1_and_2  # noqa: F401, imported once for all the forks
from diffusers import (  # noqa: F401
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer, XLMRobertaModel  # noqa: F401

import pea.cli
import pea.export
import pea.features
import pea.generate
import pea.info
import pea.train
from crosslingual_worlds.testing.processes import serve_verbs

if __name__ == "__main__":
    serve_verbs("pea", pea.cli.main, [pea.train])
