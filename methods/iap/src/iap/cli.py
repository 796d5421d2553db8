"""The `iap` command: one verb a module."""

import sys

from crosslingual.cli.verbs import run_verbs

VERBS = {
    "demo": ("the whole method on the embedded models, in minutes", "iap.demo:main"),
    "features": ("shards through the frozen parts, once", "iap.features:main"),
    "train": ("train a text encoder on features or shards", "iap.train:main"),
    "export": ("a checkpoint's encoder, as stock diffusers loads it", "iap.export:main"),
    "generate": ("pictures from prompts", "iap.generate:main"),
    "evaluate": ("text accuracy by language on the testbed", "iap.evaluate:main"),
    "ablate": ("branch, layers, distance: arm by arm, one table", "iap.ablate:main"),
    "info": ("parameters and memory, from shapes alone", "iap.info:main"),
}
DESCRIPTION = (
    "IAP (arXiv 2305.11540): a text encoder of another language, aligned through pictures.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)


def main() -> int:
    """Runs a verb; `iap VERB --help` lists its settings."""
    return run_verbs("iap", DESCRIPTION, VERBS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
