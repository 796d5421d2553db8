"""The projectors as a folder: written after training or from a checkpoint, alone or with the
multilingual encoder beside them, and read back.

mclip export --checkpoint runs/mclip --output_dir model --bundle_encoder
torchrun --nproc_per_node 2 -m mclip.export ...      # as many as wrote it, at ZeRO 1 and 2
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from crosslingual.adapter.artifact import load_artifact, load_strict, model_card, save_artifact
from crosslingual.cli.settings import parse_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual.frozen.weights import freeze, resolve, weights_hash
from crosslingual.training.processes import Ranks
from mclip.config import ExportSettings, TrainSettings
from mclip.method import TriKD

BUNDLED = "encoder"

CARD = """\
The projectors of mCLIP (ACL 2023): {count:,} parameters by which the frozen CLIP `{clip}` and the
frozen text encoder `{text_encoder}` share one space of width {width}, trained by triangle knowledge
distillation. Pictures and texts are compared by the cosine of their vectors.

```bash
mclip search --model this/folder --images pictures --query "..." --output found.png
mclip embed --model this/folder --images pictures --output index
```
"""


def save_model(
    state: dict[str, Tensor],
    config: dict[str, Any],
    folder: str | Path,
    *,
    bundle_encoder: bool = False,
) -> Path:
    """Writes config.json, model.safetensors and the model card.

    Args:
        state: `TriKD`'s tensors.
        config: what `mclip.info.model_config` gives.
        folder: replaced if it holds a model already.
        bundle_encoder: put a copy of the multilingual encoder into the folder, which config.json
            then names, so that the folder can be moved.
    """
    folder = Path(folder)
    beside = folder.with_name(f"{folder.name}.{BUNDLED}")
    name, count = config["text_encoder"], sum(tensor.numel() for tensor in state.values())
    card = model_card(
        title="mCLIP projectors",
        text=CARD.format(count=count, **config),
        base_model=config["clip"],
        languages=config["languages"],
        pipeline_tag="zero-shot-image-classification",
        tags=["mclip", "cross-lingual", "retrieval"],
        license="mit",
    )
    try:
        if bundle_encoder:
            _copy_encoder(name, config["text_encoder_revision"], beside)
            config = {**config, "text_encoder": BUNDLED, "text_encoder_revision": None}
            config |= {"text_encoder_weights": weights_hash(str(beside)), "has_encoder": True}
        save_artifact(folder, state=state, config=config, card=card)
        if bundle_encoder:
            beside.rename(folder / BUNDLED)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _copy_encoder(name: str, revision: str | None, folder: Path) -> None:
    if Path(resolve(name)).is_dir():
        shutil.copytree(resolve(name), folder, dirs_exist_ok=True)
        return
    encoder = load_multilingual_encoder(name, revision)
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


def write_model(
    engine: Any, config: dict[str, Any], folder: Path, ranks: Ranks, *, bundle_encoder: bool = False
) -> Path:
    """Exports what an engine trained; every process must call it."""
    from crosslingual.training.engine import full_state_dict

    state = full_state_dict(engine)
    if ranks.rank == 0:
        save_model(state, config, folder, bundle_encoder=bundle_encoder)
    return folder


def load_model(folder: str | Path) -> tuple[TriKD, dict[str, Any]]:
    """Reads an exported model, frozen, and its config, whose `text_encoder` is then a path or id
    that can be loaded from here.

    Raises:
        FileNotFoundError: no model there, or its frozen parts are gone.
        ValueError: a pickle, another method's folder, keys that do not fit, or frozen parts with
            other weights than those that the projectors were trained on.
    """
    config, state = load_artifact(folder)
    if config.get("method") != "mclip" or "clip_width" not in config:
        raise ValueError(f"{folder} holds no projectors of mclip; `mclip export` writes some")
    if config.pop("has_encoder", False):
        config["text_encoder"] = str(Path(folder) / BUNDLED)
    for part in ("clip", "text_encoder"):
        found = weights_hash(config[part])
        if config[f"{part}_weights"] and not found:
            raise FileNotFoundError(
                f"{config[part]}, which {folder} was trained on, is gone: bring it back; a model "
                "exported with --bundle_encoder holds its encoder itself"
            )
        if config[f"{part}_weights"] not in (None, found):
            raise ValueError(
                f"the weights of {config[part]} are not those that {folder} was trained on: give "
                "back the old ones, or train on the new ones"
            )
    trikd = TriKD(config)
    load_strict(trikd, state)
    return freeze(trikd), config


def export(settings: ExportSettings) -> Path:
    """Writes the projectors of a checkpoint as a folder of safetensors."""
    from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint
    from crosslingual.training.processes import start_processes
    from mclip.info import model_config
    from mclip.train import build_training

    run = Path(settings.checkpoint)
    run, which = (run.parent, str(run)) if run.name.startswith("checkpoint-") else (run, "latest")
    checkpoint = resolve_checkpoint(run, which)
    trained = parse_settings(
        TrainSettings, ["--config", str(run / "settings.yaml")], prog="mclip export"
    )
    ranks = start_processes()
    config = model_config(trained)
    engine = build_training(trained, config)
    load_checkpoint(engine, checkpoint)
    folder = write_model(
        engine, config, Path(settings.output_dir), ranks, bundle_encoder=settings.bundle_encoder
    )
    if ranks.rank == 0:
        print(folder)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Command line of `mclip export` and `python -m mclip.export`."""
    return run_verb("mclip export", ExportSettings, export, argv)


if __name__ == "__main__":
    sys.exit(main())
