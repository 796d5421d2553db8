"""The `altdiffusion` command: one verb a module."""

import sys

from crosslingual.cli.verbs import run_verbs

VERBS = {
    "demo": ("the whole method on the embedded models, in minutes", "altdiffusion.demo:main"),
    "train-text": ("teacher learning: a multilingual student", "altdiffusion.train_text:main"),
    "evaluate-retrieval": (
        "Recall@K of AltCLIP by language",
        "altdiffusion.evaluate_retrieval:main",
    ),
    "features": ("shards through VAE and text encoder, once", "altdiffusion.features:main"),
    "train": ("a stage of the UNet on features or shards", "altdiffusion.train:main"),
    "export": ("a checkpoint as a pipeline's folder", "altdiffusion.export:main"),
    "generate": ("pictures from prompts", "altdiffusion.generate:main"),
    "evaluate": (
        "text accuracy and culture score on the testbed",
        "altdiffusion.evaluate:main",
    ),
    "info": ("what trains, in parameters, from shapes alone", "altdiffusion.info:main"),
    "memory": ("memory a GPU by stage and ZeRO level", "altdiffusion.memory:main"),
}
DESCRIPTION = (
    "AltDiffusion (arXiv 2308.09991): a multilingual text encoder, and a UNet that reads it.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)


def main() -> int:
    """Runs a verb; `altdiffusion VERB --help` lists its settings."""
    return run_verbs("altdiffusion", DESCRIPTION, VERBS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
