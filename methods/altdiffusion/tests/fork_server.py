"""`altdiffusion` verbs in forked processes: `crosslingual_worlds.testing.processes`, with altdiffusion imported."""

from deepspeed.runtime.zero import stage3, stage_1_and_2  # noqa: F401, once for all the forks
from diffusers import (  # noqa: F401
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import (  # noqa: F401
    AltCLIPModel,
    CLIPImageProcessorPil,
    CLIPTextModel,
    CLIPTokenizer,
    XLMRobertaModel,
)

import altdiffusion.cli
import altdiffusion.evaluate_retrieval
import altdiffusion.export
import altdiffusion.features
import altdiffusion.generate
import altdiffusion.info
import altdiffusion.memory
import altdiffusion.train
import altdiffusion.train_text
from crosslingual_worlds.testing.processes import serve_verbs

if __name__ == "__main__":
    serve_verbs(
        "altdiffusion", altdiffusion.cli.main, [altdiffusion.train, altdiffusion.train_text]
    )
