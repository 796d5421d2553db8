"""The `template` command: one verb a module."""

import sys

from crosslingual.cli.verbs import run_verbs

VERBS = {
    "features": ("shards through the frozen text encoders, once", "template.features:main"),
    "train": ("train an adapter on features or shards", "template.train:main"),
    "export": ("a checkpoint's adapter as safetensors", "template.export:main"),
    "generate": ("pictures from prompts", "template.generate:main"),
    "info": ("parameters and memory, from shapes alone", "template.info:main"),
}
DESCRIPTION = (
    "Text-space MSE: states equal to the English encoder's, position by position.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)


def main() -> int:
    """Runs a verb; `template VERB --help` lists its settings."""
    return run_verbs("template", DESCRIPTION, VERBS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
