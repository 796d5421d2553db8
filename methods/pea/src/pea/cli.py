"""The `pea` command: one verb a module, imported when it is called, so that `pea --help` answers
at once.
"""

import sys
from importlib import import_module

VERBS = {
    "demo": ("pea.demo", "the whole method on the embedded models, in minutes"),
    "features": ("pea.features", "shards through the frozen parts, once"),
    "train": ("pea.train", "train an adapter on features or shards"),
    "export": ("pea.export", "a checkpoint's adapter as safetensors"),
    "import": ("pea.published", "a published state dict as an adapter"),
    "generate": ("pea.generate", "pictures from prompts"),
    "evaluate": ("pea.evaluate", "text accuracy by language on the testbed"),
    "info": ("pea.info", "parameters and memory, from shapes alone"),
}


def main() -> int:
    """Runs a verb; `pea VERB --help` lists its settings."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print("usage: pea VERB [--config FILE.yaml] [--setting VALUE ...]\n")
        print("PEA-Diffusion (arXiv 2311.17086): an adapter, distilled through the frozen UNet.\n")
        for verb, (_, purpose) in VERBS.items():
            print(f"  {verb:<10} {purpose}")
        return 0
    if words[0] not in VERBS:
        print(f"error: pea has no verb {words[0]!r}; there are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    return int(import_module(VERBS[words[0]][0]).main(words[1:]))


if __name__ == "__main__":
    sys.exit(main())
