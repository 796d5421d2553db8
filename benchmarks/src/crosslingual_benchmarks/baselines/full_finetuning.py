"""Full fine-tuning: UNet and a multilingual text encoder learn together, by the diffusion loss
alone; nothing is frozen but the VAE, and nothing is distilled.

    torchrun --nproc_per_node 2 -m crosslingual_benchmarks.baselines.full_finetuning \\
        --train_data shards --languages en de zh --output_dir runs/full

The text encoder is XLM-R with a linear head to the UNet's width, as
`transformers.AltCLIPTextModel`, so that stock diffusers loads what is written. It starts without
any relation to what the UNet reads, which is what this arm has to learn in its budget.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AltCLIPTextConfig, AltCLIPTextModel, XLMRobertaModel

from crosslingual.adapter.artifact import load_strict
from crosslingual.cli.settings import write_settings
from crosslingual.cli.verbs import run_verb
from crosslingual.features.training_data import open_training_data, row_generators
from crosslingual.frozen.base import load_noise_scheduler, load_unet
from crosslingual.frozen.base import load_pipeline as load_base
from crosslingual.frozen.encoders import encoder_config, encoder_shape
from crosslingual.frozen.schedule import Noising, choose_language, drop_captions
from crosslingual.frozen.shapes import vae_scaling_factor
from crosslingual.frozen.weights import load_frozen, locate
from crosslingual.training.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint
from crosslingual.training.engine import build_engine, check_finite, full_state_dict
from crosslingual.training.processes import StopRequest, start_processes
from crosslingual.training.progress import Progress
from crosslingual_benchmarks.baselines.caption_ids import CaptionIdParts

SHAPE = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "max_position_embeddings hidden_act layer_norm_eps pad_token_id bos_token_id eos_token_id "
    "type_vocab_size"
).split()


@dataclass
class FullFinetuningSettings:
    """Settings of full fine-tuning.

    Attributes:
        train_data: a folder of shards, or of features that this wrote.
        output_dir: where checkpoints, metrics and the pipeline go.
        pretrained_model_name_or_path: the base.
        text_encoder: the XLM-R to start from.
        languages: whose captions train; each row draws one of those that it has.
        resolution: of the pictures in pixels.
        caption_dropout: share of rows that see the empty prompt.
        train_batch_size: samples a process.
        max_train_steps: optimiser steps.
        learning_rate: peak of the UNet's and the encoder's.
        lr_scheduler: one of diffusers'.
        lr_warmup_steps: of the schedule.
        adam_beta2: AdamW's.
        adam_weight_decay: AdamW's.
        max_grad_norm: gradients are clipped to it.
        deepspeed_config: a DeepSpeed JSON; ZeRO stage 0 if not given.
        seed: of everything drawn.
        checkpointing_steps: steps between checkpoints.
        checkpoints_total_limit: how many are kept.
        resume_from_checkpoint: a checkpoint folder or latest.
    """

    train_data: str
    output_dir: str
    pretrained_model_name_or_path: str = "testbed:sd"
    text_encoder: str = "testbed:xlm-r"
    languages: list[str] = field(default_factory=list)
    resolution: int = 64
    caption_dropout: float = 0.1
    train_batch_size: int = 24
    max_train_steps: int = 1000
    learning_rate: float = 1e-3
    lr_scheduler: str = "polynomial"
    lr_warmup_steps: int = 50
    adam_beta2: float = 0.98
    adam_weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    deepspeed_config: str | None = None
    seed: int = 0
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None


class JointModel(nn.Module):
    """UNet and text encoder as one module, which is what the engine holds."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module):
        """Keeps both."""
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, latents: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """The UNet's prediction (B, 4, h, w) for latents (B, 4, h, w) and token ids (B, M)."""
        mask = ids.ne(self.text_encoder.config.pad_token_id).long()
        states = self.text_encoder(ids, attention_mask=mask).last_hidden_state
        return self.unet(latents, timesteps, states).sample


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
    config.use_attention_mask = True  # diffusers hands over the mask only then
    model = AltCLIPTextModel(config)
    found = load_frozen(XLMRobertaModel, name, add_pooling_layer=False).state_dict()
    renamed = {key.replace("encoder.layer.", "encoder.layers."): t for key, t in found.items()}
    load_strict(model.roberta, renamed)
    return model.train()


def build_joint(settings: FullFinetuningSettings) -> JointModel:
    """UNet and text encoder as they start, all of it trainable."""
    torch.manual_seed(settings.seed)
    unet = load_unet(settings.pretrained_model_name_or_path).requires_grad_(True).train()
    text_encoder = build_text_encoder(settings.text_encoder, unet.config.cross_attention_dim)
    return JointModel(unet, text_encoder.requires_grad_(True))


def build_training(settings: FullFinetuningSettings) -> Any:
    """The DeepSpeed engine around both."""
    return build_engine(
        build_joint(settings),
        settings.deepspeed_config or {"zero_optimization": {"stage": 0}},
        learning_rate=settings.learning_rate,
        weight_decay=settings.adam_weight_decay,
        betas=(0.9, settings.adam_beta2),
        lr_scheduler=settings.lr_scheduler,
        lr_warmup_steps=settings.lr_warmup_steps,
        lr_end=0.0,
        max_train_steps=settings.max_train_steps,
        max_grad_norm=settings.max_grad_norm,
        train_batch_size=settings.train_batch_size,
        gradient_accumulation_steps=1,
        mixed_precision="no",
    )


def caption_parts(settings: FullFinetuningSettings, device: torch.device) -> CaptionIdParts:
    """What samples pass once."""
    length = encoder_shape(settings.text_encoder)[1]
    return CaptionIdParts(
        locate(settings.pretrained_model_name_or_path),
        locate(settings.text_encoder),
        settings.languages,
        min(77, length),
        device,
    )


def diffusion_step(
    engine: Any, noising: Noising, null: Tensor, batch: dict[str, Any], generators: list
) -> Tensor:
    """The mean squared error of the prediction, of one caption a row."""
    noisy = noising.draw(batch, generators)
    chosen = choose_language(batch["has_language"], generators)
    ids = batch["ids"][torch.arange(len(chosen)), chosen]
    ids = drop_captions(ids, null[None], noisy.dropped.cpu()).long().to(noising.device)
    predicted = engine(noisy.latents, noisy.timesteps, ids)
    return (predicted.float() - noisy.target.float()).square().mean()


def train(settings: FullFinetuningSettings) -> Path:
    """Trains both and writes `output_dir/pipeline`, which stock diffusers loads."""
    ranks = start_processes()
    output_dir = Path(settings.output_dir)
    resume = resolve_checkpoint(output_dir, settings.resume_from_checkpoint)
    parts = caption_parts(settings, ranks.device)
    size = {"resolution": settings.resolution, "batch_size": settings.train_batch_size}
    data = open_training_data(settings.train_data, parts, seed=settings.seed, ranks=ranks, **size)
    base = settings.pretrained_model_name_or_path
    noising = Noising(
        load_noise_scheduler(base),
        vae_scaling_factor(base),
        device=ranks.device,
        caption_dropout=settings.caption_dropout,
    )
    engine = build_training(settings)
    first = 0 if resume is None else load_checkpoint(engine, resume)["step"]
    last = settings.max_train_steps
    if ranks.rank == 0:
        output_dir.mkdir(parents=True, exist_ok=True)
        write_settings(settings, output_dir / "settings.yaml")
    batches = data.batches(first)
    progress = Progress(last, output_dir, start_step=first, rank=ranks.rank)
    with StopRequest() as stop:
        for step in range(first, last):
            batch = next(batches)
            generators = row_generators(settings.seed, step, ranks, settings.train_batch_size)
            loss = diffusion_step(engine, noising, data.null["ids"], batch, generators)
            if not torch.isfinite(loss):
                check_finite(loss, {}, step=step + 1, keys=data.keys(batch))
            engine.backward(loss)
            engine.step()
            num_samples = settings.train_batch_size * ranks.world_size
            progress.step(step + 1, loss.detach(), {}, engine.get_lr()[0], num_samples)
            is_stopping = stop.requested(ranks)
            if is_stopping or (step + 1) % settings.checkpointing_steps == 0 or step + 1 == last:
                limit = settings.checkpoints_total_limit
                save_checkpoint(engine, output_dir, step=step + 1, state={}, total_limit=limit)
            if is_stopping and step + 1 < last:
                progress.close()
                return output_dir
    progress.close()
    return write_pipeline(engine, settings, parts, output_dir / "pipeline", ranks)


def write_pipeline(
    engine: Any,
    settings: FullFinetuningSettings,
    parts: CaptionIdParts,
    folder: Path,
    ranks: Any,
) -> Path:
    """Writes the base's pipeline with what was trained; every process must call it."""
    state = full_state_dict(engine)
    if ranks.rank == 0:
        joint = build_joint(settings)
        load_strict(joint, state)
        pipe = load_base(
            settings.pretrained_model_name_or_path,
            unet=joint.unet.eval(),
            text_encoder=joint.text_encoder.eval(),
            tokenizer=parts.tokenizer,
        )
        pipe.save_pretrained(folder, safe_serialization=True)
    torch.distributed.barrier()
    return folder


def load_pipeline(path: str) -> Any:
    """What `write_pipeline` wrote, by stock diffusers."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(path, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main(argv: list[str] | None = None) -> int:
    """Command line of `python -m crosslingual_benchmarks.baselines.full_finetuning`."""
    prog = "python -m crosslingual_benchmarks.baselines.full_finetuning"
    return run_verb(prog, FullFinetuningSettings, train, argv)


if __name__ == "__main__":
    sys.exit(main())
