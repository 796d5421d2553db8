"""Full fine-tuning: UNet and a multilingual text encoder learn together, by the diffusion loss
alone. Only the VAE is frozen, and nothing is distilled.

    torchrun --nproc_per_node 2 -m crosslingual_benchmarks finetune \\
        --train_data shards --languages en de zh --output_dir runs/full

The text encoder is XLM-R with a linear head to the UNet's width, as
`transformers.AltCLIPTextModel`, so that stock diffusers loads the result. At the start its states
mean nothing to the UNet: this arm has to learn that in its budget.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AltCLIPTextConfig, AltCLIPTextModel, XLMRobertaModel

from crosslingual.adapter.artifact import load_strict
from crosslingual.cli.settings import read_settings
from crosslingual.features.compute import write_run_features
from crosslingual.features.training_data import open_run_data
from crosslingual.folders import check_folder, publish_folder
from crosslingual.frozen.base import Base, Conditioning
from crosslingual.frozen.encoders import encoder_config, encoder_shape
from crosslingual.frozen.schedule import Noising, choose_language, drop_captions
from crosslingual.frozen.weights import freeze_embeddings, frozen_tensors, load_frozen, locate
from crosslingual.training.checkpoint import find_checkpoint, settings_file, trained_state
from crosslingual.training.processes import start_processes
from crosslingual.training.run import Run
from crosslingual_benchmarks.baselines.caption_ids import CaptionIdParts
from crosslingual_benchmarks.baselines.settings import (
    ExportSettings,
    FeaturesSettings,
    FinetuneSettings,
)

SHAPE = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "max_position_embeddings hidden_act layer_norm_eps pad_token_id bos_token_id eos_token_id "
    "type_vocab_size"
).split()


class JointModel(nn.Module):
    """UNet and text encoder as the one module that the engine takes."""

    def __init__(self, base: Base, text_encoder: nn.Module, settings: FinetuneSettings):
        """Loads the UNet of the base. Both train whole, or without the encoder's word embeddings
        (`train_embeddings: false`).
        """
        super().__init__()
        self.unet = base.load_model().requires_grad_(True).train()
        self.text_encoder = text_encoder.requires_grad_(True)
        if not settings.train_embeddings:
            freeze_embeddings(self.text_encoder)
        self.denoiser = base.wrap_denoiser(
            self.unet, resolution=settings.resolution, mixed_precision=settings.mixed_precision
        )

    def forward(self, latents: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """The UNet's prediction (B, 4, h, w) for latents (B, 4, h, w) and token ids (B, M)."""
        mask = ids.ne(self.text_encoder.config.pad_token_id).long()
        with self.denoiser.autocast():
            states = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        return self.denoiser.predict(latents, timesteps, Conditioning(states))


def build_text_encoder(name: str, width: int) -> AltCLIPTextModel:
    """An XLM-R's weights under a fresh head to `width`.

    Raises:
        ValueError: `name` is no XLM-R.
    """
    shape = encoder_config(name).to_dict()
    if shape["model_type"] != "xlm-roberta":
        raise ValueError(f"{name} is a {shape['model_type']}; full fine-tuning starts from XLM-R")
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = AltCLIPTextConfig(**{key: shape[key] for key in SHAPE}, **off, project_dim=width)
    config.use_attention_mask = True  # else diffusers passes no mask
    model = AltCLIPTextModel(config)
    found = load_frozen(XLMRobertaModel, name, add_pooling_layer=False).state_dict()
    renamed = {key.replace("encoder.layer.", "encoder.layers."): t for key, t in found.items()}
    load_strict(model.roberta, renamed)
    return model.train()


def build_joint(settings: FinetuneSettings) -> JointModel:
    """UNet and text encoder as they start, seeded.

    Raises:
        ValueError: the base takes more of a text than states, as SDXL does.
    """
    torch.manual_seed(settings.seed)
    base = Base.open(settings.pretrained_model_name_or_path)
    if base.text.pooled_width is not None:
        raise ValueError(f"{base.id} takes pooled text vectors, which this text encoder lacks")
    return JointModel(base, build_text_encoder(settings.text_encoder, base.text.width), settings)


def caption_parts(
    settings: FinetuneSettings | FeaturesSettings, device: torch.device
) -> CaptionIdParts:
    """The frozen parts that samples pass once."""
    length = encoder_shape(settings.text_encoder)[1]
    base = Base.open(settings.pretrained_model_name_or_path)
    encoder = locate(settings.text_encoder)
    return CaptionIdParts(base, encoder, settings.languages, min(77, length), device)


def features(settings: FeaturesSettings) -> Path:
    """Writes latents and token ids of `shards`; a second run resumes where the first stopped."""
    ranks = start_processes()
    return write_run_features(settings, caption_parts(settings, ranks.device), ranks)


def finetuning_step(
    joint: Any,
    noising: Noising,
    null: Tensor,
    batch: dict[str, Any],
    draws: Sequence[torch.Generator],
) -> Tensor:
    """The mean squared error of the prediction, of one caption a row."""
    noisy = noising.draw(batch, draws)
    chosen = choose_language(batch["has_language"], draws)
    ids = batch["ids"][torch.arange(len(chosen)), chosen]
    ids = drop_captions(ids, null[None], noisy.dropped.cpu()).long().to(noising.device)
    predicted = joint(noisy.latents, noisy.timesteps, ids)
    return (predicted.float() - noisy.target.float()).square().mean()


def finetune(settings: FinetuneSettings) -> Path:
    """Trains both and writes `output_dir/pipeline`, which stock diffusers loads."""
    run = Run(settings)
    parts = caption_parts(settings, run.ranks.device)
    data = open_run_data(settings, parts, run.ranks)
    noising = parts.base.schedule(device=run.ranks.device, caption_dropout=settings.caption_dropout)
    joint = run.prepare(build_joint(settings))
    batches = data.batches(run.first_micro_step)
    for step in run.steps():
        for draws in run.micro_steps(step):
            batch = next(batches)
            loss = finetuning_step(joint, noising, data.null["ids"], batch, draws)
            run.backward(loss, {}, keys=partial(data.keys, batch))
        run.end_step()
    folder = Path(settings.output_dir) / "pipeline"
    return run.finish(lambda state: save_pipeline(state, settings, parts, folder))


def export(settings: ExportSettings) -> Path:
    """Writes a checkpoint's pipeline to `output_dir`."""
    checkpoint = find_checkpoint(settings.checkpoint)
    trained = read_settings(FinetuneSettings, settings_file(checkpoint))
    parts = caption_parts(trained, torch.device("cpu"))
    folder = Path(settings.output_dir)
    return save_pipeline(trained_state(checkpoint), trained, parts, folder)


def save_pipeline(
    state: dict[str, Tensor], settings: FinetuneSettings, parts: CaptionIdParts, folder: Path
) -> Path:
    """Writes the base's pipeline with the trained UNet and text encoder."""
    joint = build_joint(settings)
    load_strict(joint, frozen_tensors(joint) | state)
    pipe = parts.base.load_pipeline(
        denoiser=joint.unet.eval(),
        text_encoder=joint.text_encoder.eval(),
        tokenizer=parts.tokenizer,
    )
    return publish_folder(
        folder, lambda place: pipe.save_pretrained(place, safe_serialization=True), kind="pipeline"
    )


def load_pipeline(path: str) -> Any:
    """The pipeline that `finetune` wrote, by stock diffusers."""
    from diffusers import StableDiffusionPipeline

    check_folder(path)
    pipe = StableDiffusionPipeline.from_pretrained(
        path, safety_checker=None, trust_remote_code=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
