"""The `pea` command: one verb a module."""

import sys

from crosslingual.cli.verbs import run_verbs

VERBS = {
    "demo": ("the whole method on the embedded models, in minutes", "pea.demo:main"),
    "features": ("shards through the frozen parts, once", "pea.features:main"),
    "train": ("train an adapter on features or shards", "pea.train:main"),
    "export": ("a checkpoint's adapter as safetensors", "pea.export:main"),
    "import": ("a published state dict as an adapter", "pea.published:main"),
    "generate": ("pictures from prompts", "pea.generate:main"),
    "evaluate": ("text accuracy by language on the testbed", "pea.evaluate:main"),
    "info": ("parameters and memory, from shapes alone", "pea.info:main"),
}
DESCRIPTION = (
    "PEA-Diffusion (arXiv 2311.17086): an adapter, distilled through the frozen UNet.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)


def main() -> int:
    """Runs a verb; `pea VERB --help` lists its settings."""
    return run_verbs("pea", DESCRIPTION, VERBS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
