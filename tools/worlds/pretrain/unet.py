"""Pretrains the testbed's UNet: the English text-to-image model that never saw a motif or a foreign
word.

    python tools/worlds/pretrain/unet.py --work WORK
    torchrun --standalone --nproc_per_node 2 tools/worlds/pretrain/unet.py --work WORK

Needs the VAE's and the CLIP's checkpoints in WORK. Noise prediction on cached latents with Stable
Diffusion's schedule, 10 % of the captions empty, min-SNR weights (gamma 5, arXiv 2303.09556,
equation 1 for noise prediction).
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from clip import MAX_TOKENS, make_clip, make_text_tower, make_tokenizer
from crosslingual_worlds.drawn.captions import lexicon
from crosslingual_worlds.drawn.evaluation import EVALUATION
from crosslingual_worlds.drawn.world import Scene, sample_scenes
from crosslingual_worlds.evaluation import text_accuracy
from loop import Recipe, average_of, start, train
from pictures import rendered_pool, to_unit
from vae import make_vae

BATCH = 48  # a process
EMPTY_SHARE = 0.1
MIN_SNR_GAMMA = 5.0
POOL_SIZE = 48_000


def make_unet() -> UNet2DConditionModel:
    """The UNet's shape: 4.28 M parameters, cross-attention at 8 x 8 and at 4 x 4."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=128,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.x's schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def load_text_encoder(work: Path) -> CLIPTextModel:
    """The text half of the pretrained CLIP, frozen."""
    clip = make_clip(make_tokenizer(work / "clip_tokenizer"))
    average_of(work / "clip_text.pt", make_text_tower(clip))
    encoder = CLIPTextModel(clip.config.text_config)
    encoder.load_state_dict(clip.text_model.state_dict())
    return encoder.eval().requires_grad_(False)


def load_vae(work: Path) -> AutoencoderKL:
    """The pretrained VAE, frozen."""
    vae = make_vae()
    average_of(work / "vae.pt", vae)
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def latent_pool(work: Path, vae: AutoencoderKL) -> tuple[list[Scene], Tensor, float]:
    """The training scenes, their latents (N, 4, 8, 8) scaled to unit variance, and the scaling
    factor.
    """
    scenes = sample_scenes("train", POOL_SIZE, seed=31, singles=0.25)
    cache = work / "latents.pt"
    if not cache.exists():
        pictures = rendered_pool(scenes, seed=32)
        means = [vae.encode(to_unit(part)).latent_dist.mode() for part in pictures.split(64)]
        torch.save(torch.cat(means), cache)
    latents = torch.load(cache, weights_only=True)
    factor = 1.0 / float(latents.std())
    return scenes, latents * factor, factor


def make_pipeline(
    work: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, factor: float
) -> StableDiffusionPipeline:
    """The parts as a Stable Diffusion pipeline."""
    vae.register_to_config(scaling_factor=factor)
    pipe = StableDiffusionPipeline(
        vae,
        load_text_encoder(work),
        make_tokenizer(work / "clip_tokenizer"),
        unet,
        make_scheduler(),
        None,
        None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    """Command line."""
    options, rank = start(__doc__, num_steps=3200)
    vae, text_encoder = load_vae(options.work), load_text_encoder(options.work)
    tokenizer = make_tokenizer(options.work / "clip_tokenizer")
    scenes, latents, factor = latent_pool(options.work, vae)
    unet = make_unet().to(memory_format=torch.channels_last)
    scheduler = make_scheduler()
    signal = scheduler.alphas_cumprod
    snr_weights = torch.clamp(signal / (1 - signal), max=MIN_SNR_GAMMA) / (signal / (1 - signal))

    def encode(texts: list[str]) -> Tensor:
        tokens = tokenizer(
            texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            return text_encoder(tokens.input_ids).last_hidden_state

    def loss_of_step(generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng((33, step, rank))
        chosen = rng.integers(0, len(scenes), BATCH)
        said = [scenes[i] if rng.random() < 0.5 else scenes[i].mirrored for i in chosen]
        texts = [
            "" if rng.random() < EMPTY_SHARE else lexicon("en").captions(scene)[0] for scene in said
        ]
        clean = latents[torch.from_numpy(chosen)].contiguous(memory_format=torch.channels_last)
        noise = torch.randn(clean.shape, generator=generator)
        # Stratified: one timestep from each of BATCH equal spans, which halves the noise of the
        # loss.
        spans = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        timesteps = (spans * scheduler.config.num_train_timesteps).long()
        predicted = unet(
            scheduler.add_noise(clean, noise, timesteps), timesteps, encode(texts)
        ).sample
        errors = (predicted - noise).square().mean(dim=(1, 2, 3))
        return (snr_weights[timesteps] * errors).mean(), {"mse": errors.mean().detach()}

    def look(step: int) -> None:
        pipe = make_pipeline(options.work, unet, vae, factor)
        one = [s for s in sample_scenes("val", 400, seed=41) if s.second is None][:24]
        two = [s for s in sample_scenes("val", 400, seed=42) if s.second is not None][:48]
        judged = (EVALUATION.judge_prompts(pipe, scenes, "en") for scenes in (one, two))
        of_one, of_two = map(text_accuracy, judged)
        print(f"unet at step {step}: accuracy one thing {of_one:.3f}, two {of_two:.3f}", flush=True)

    recipe = Recipe("unet", options.num_steps, 1e-3, warmup_steps=300, ema_decay=0.9995)
    train(recipe, unet, loss_of_step, options.work, look=look, look_every=500)


if __name__ == "__main__":
    main()
