"""`mclip` verbs in forked processes: `crosslingual_worlds.testing.processes`, with mclip imported."""

from deepspeed.runtime.zero import stage_1_and_2  # noqa: F401, imported once for all the forks
from diffusers import optimization  # noqa: F401
from transformers import CLIPModel, CLIPTokenizer, XLMRobertaModel  # noqa: F401

import mclip.cli
import mclip.export
import mclip.features
import mclip.info
import mclip.train
import mclip.train_encoder
from crosslingual_worlds.testing.processes import serve_verbs

if __name__ == "__main__":
    serve_verbs("mclip", mclip.cli.main, [mclip.train, mclip.train_encoder])
