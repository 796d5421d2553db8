"""The `mclip` command: one verb a module."""

import sys

from crosslingual.cli.verbs import run_verbs

VERBS = {
    "demo": ("the whole method on the embedded models, in minutes", "mclip.demo:main"),
    "tokenize": ("parallel text as token arrays, once", "mclip.tokens:main"),
    "train-encoder": ("stage 1: enhance XLM-R on parallel text", "mclip.train_encoder:main"),
    "translate": ("sentences by stage 1's translation model", "mclip.translate:main"),
    "evaluate-text": ("retrieval of sentences between languages", "mclip.evaluate_text:main"),
    "features": ("shards through the frozen parts, once", "mclip.features:main"),
    "train": ("stage 2: train the projectors by TriKD", "mclip.train:main"),
    "export": ("a checkpoint's projectors as safetensors", "mclip.export:main"),
    "import": ("a published state dict as a model", "mclip.published:main"),
    "evaluate": ("Recall@K of pictures and texts by language", "mclip.evaluate:main"),
    "embed": ("embeddings of pictures or texts for an index", "mclip.embed:main"),
    "search": ("pictures that answer a query in any language", "mclip.search:main"),
    "info": ("parameters and memory, from shapes alone", "mclip.info:main"),
}
DESCRIPTION = (
    "mCLIP (ACL 2023): CLIP reads other languages through two projectors, taught by a triangle of\n"
    "picture, English text and multilingual text, after a stage on parallel text alone.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)


def main() -> int:
    """Runs a verb; `mclip VERB --help` lists its settings."""
    return run_verbs("mclip", DESCRIPTION, VERBS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
