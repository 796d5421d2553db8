"""`iap` verbs in forked processes: `crosslingual_worlds.testing.processes`, with iap imported."""

from deepspeed.runtime.zero import stage_1_and_2  # noqa: F401, imported once for all the forks
from diffusers import (  # noqa: F401
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import AltCLIPTextModel, CLIPTextModel, CLIPTokenizer, XLMRobertaModel  # noqa: F401

import iap.cli
import iap.export
import iap.features
import iap.generate
import iap.info
import iap.train
from crosslingual_worlds.testing.processes import serve_verbs

if __name__ == "__main__":
    serve_verbs("iap", iap.cli.main, [iap.train])
