"""The `mulan` command: one verb a module."""

import sys

from crosslingual.cli.verbs import run_verbs

VERBS = {
    "demo": ("the whole method on the embedded models, in minutes", "mulan.demo:main"),
    "features": ("shards through the frozen parts, once", "mulan.features:main"),
    "train": ("train an adapter on features or shards", "mulan.train:main"),
    "export": ("a checkpoint's adapter as safetensors", "mulan.export:main"),
    "import": ("a published state dict as an adapter", "mulan.published:main"),
    "generate": ("pictures from prompts", "mulan.generate:main"),
    "evaluate": ("text accuracy by language on the testbed", "mulan.evaluate:main"),
    "info": ("parameters and memory, from shapes alone", "mulan.info:main"),
}
DESCRIPTION = (
    "MuLan (arXiv 2412.01271): English pictures train an adapter, its encoder brings the languages."
    "\nA verb's settings come from --config FILE.yaml and flags, which override it."
)


def main() -> int:
    """Runs a verb; `mulan VERB --help` lists its settings."""
    return run_verbs("mulan", DESCRIPTION, VERBS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
