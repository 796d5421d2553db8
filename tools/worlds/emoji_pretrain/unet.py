"""The UNet of `emoji:sd`: draws the taught emoji as Noto does, on the locked text tower's states.

Velocity prediction (arXiv 2202.00512, appendix D) on cached latents with Stable Diffusion's
schedule, a tenth of the prompts empty. A noise predictor learns too slowly what a name looks like:
where the text decides, at high noise, its loss weighs an error of the picture by the
signal-to-noise ratio, which is nearly nothing (0.01 of names drawn after 960 steps).
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from clip import WIDTH, WORDINGS, text_states, train_text
from crosslingual.worlds import model_folder
from crosslingual_worlds.emoji.names import taught_emoji
from loop import Recipe, train
from vae import encode_pictures, train_vae

BATCH = 24
EMPTY_SHARE = 0.1
NAME_SHARE = 0.8  # of the prompts; the others wrap the name in a few words
MAX_WEIGHT = 2.0  # of an error of the picture, as min-SNR has it (arXiv 2303.09556)


def make_unet() -> UNet2DConditionModel:
    """The UNet's shape: 4.3 M parameters, cross-attention at 8 x 8 and at 4 x 4."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=12,
        out_channels=12,
        block_out_channels=(64, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        norm_num_groups=16,
    )


@torch.no_grad()
def start_from_drawn(unet: UNet2DConditionModel) -> None:
    """Copies the drawn world's UNet, its four latent channels into the first four of twelve."""
    drawn = UNet2DConditionModel.from_pretrained(model_folder("testbed:sd"), subfolder="unet")
    for mine, theirs in zip(unet.parameters(), drawn.parameters(), strict=True):
        mine[tuple(slice(size) for size in theirs.shape)] = theirs.to(mine)


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion 2.x's schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train_unet(work: Path, num_steps: int = 3000) -> StableDiffusionPipeline:
    """Trains the UNet, or goes on; returns the whole pipeline."""
    vae, (clip, tokenizer) = train_vae(work), train_text(work)
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    text_encoder.eval().requires_grad_(False)
    latents, factor = encode_pictures(vae)
    states = torch.stack(
        [
            text_states(text_encoder, tokenizer, [w.format(e.name) for e in taught_emoji()])[0]
            for w in WORDINGS
        ]
    )  # (wordings, N, tokens, 128)
    empty = text_states(text_encoder, tokenizer, [""])[0][0]
    torch.manual_seed(0)
    unet = make_unet()
    start_from_drawn(unet)
    unet.to(memory_format=torch.channels_last)
    scheduler = make_scheduler()
    # An error of the velocity is one of the picture, weighted by the signal-to-noise ratio + 1.
    ratio = 1 / (1 - scheduler.alphas_cumprod)
    weights = ratio.clamp(max=MAX_WEIGHT) / ratio

    def loss_of_step(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = torch.randint(len(latents), (BATCH,), generator=generator)
        draws = torch.rand(BATCH, generator=generator)
        wording = torch.randint(1, len(WORDINGS), (BATCH,), generator=generator)
        wording[draws < NAME_SHARE] = 0
        text = states[wording, chosen]
        text[draws > 1 - EMPTY_SHARE] = empty
        clean = latents[chosen].contiguous(memory_format=torch.channels_last)
        noise = torch.randn(clean.shape, generator=generator)
        # One timestep from each of BATCH equal spans halves the noise of the loss.
        spans = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        # More of them at high noise, where only the text says what to draw.
        timesteps = ((1 - spans.square()) * (scheduler.config.num_train_timesteps - 1)).long()
        target = scheduler.get_velocity(clean, noise, timesteps)
        predicted = unet(scheduler.add_noise(clean, noise, timesteps), timesteps, text).sample
        errors = (predicted - target).square().mean(dim=(1, 2, 3))
        return (weights[timesteps] * errors).mean(), {"mse": errors.mean().detach()}

    train(Recipe("unet", num_steps, 2e-3, warmup_steps=200), unet, loss_of_step, work)
    vae.register_to_config(scaling_factor=factor)
    unet.eval().requires_grad_(False)
    pipe = StableDiffusionPipeline(
        *(vae, text_encoder, tokenizer, unet, make_scheduler(), None, None),
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
