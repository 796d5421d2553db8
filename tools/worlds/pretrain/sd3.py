"""Pretrains `testbed:sd3`, a Stable Diffusion 3 in miniature, and writes its folder into the
package.

    python tools/worlds/pretrain/sd3.py --work WORK      # run it again to go on

The VAE of `testbed:sd` and the text tower of `testbed:clip` stay frozen; the transformer and two
small text encoders learn together. Flow matching as in diffusers' training script of SD 3 (arXiv
2403.03206): logit-normal times with the sampler's shift, weight 1; 10 % of the captions are empty.
Half of the scenes have one thing. Muon trains the weights of linear layers, AdamW the rest.

Captions have at most 14 tokens and the encoders read 16, which T5's config says (`n_positions`).
Stock pipelines pad T5's prompt to 256 tokens if they are not asked for fewer, so every twentieth
step sees that many.
"""

import copy
import functools
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn
from transformers import (
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from crosslingual.frozen.base import Base
from crosslingual.frozen.families.sd3 import T5_LENGTH
from crosslingual.frozen.schedule import FlowMatching
from crosslingual.frozen.weights import load_frozen, resolve
from crosslingual_worlds.drawn import WEIGHTS
from crosslingual_worlds.drawn.captions import caption, lexicon
from crosslingual_worlds.drawn.evaluation import EVALUATION
from crosslingual_worlds.drawn.world import all_scenes, sample_scenes
from crosslingual_worlds.evaluation import text_accuracy
from loop import Recipe, start, train
from pictures import rendered_pool, to_unit

BATCH = 96  # a process
LONG_BATCH, LONG_SHARE = 12, 0.05  # of the steps that see T5_LENGTH tokens of T5's
EMPTY_SHARE = 0.1
POOL_SIZE = 48_000
SINGLES_SHARE = 0.5  # one thing may be anywhere, and a transformer has to learn every place
MAX_TOKENS = 16
WIDTH, SMALL_WIDTH = 128, 64  # of the first and the second text encoder
SHIFT = 3.0
MAX_BYTES = 11_000_000


def make_transformer() -> SD3Transformer2DModel:
    """The transformer's shape: 2.9 M parameters, 16 tokens of 2 x 2 positions a picture. Each block
    begins as the identity, and the prediction as zero (DiT, arXiv 2212.09748, section 3.2).
    """
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=5,
        attention_head_dim=32,
        num_attention_heads=4,
        caption_projection_dim=128,
        joint_attention_dim=WIDTH + SMALL_WIDTH,
        pooled_projection_dim=WIDTH + SMALL_WIDTH,
        pos_embed_max_size=8,
    )
    zero = ("norm1.linear", "norm1_context.linear", "norm_out.linear", "proj_out")
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
            init = nn.init.zeros_ if name.endswith(zero) else nn.init.xavier_uniform_
            init(module.weight)
    return transformer


def first_encoder() -> CLIPTextModelWithProjection:
    """The text half of `testbed:clip`, which is that of `testbed:sd`, with fewer positions."""
    clip = load_frozen(CLIPModel, "testbed:clip")
    config = copy.deepcopy(clip.config.text_config)
    config.max_position_embeddings, config.projection_dim = MAX_TOKENS, clip.config.projection_dim
    encoder = CLIPTextModelWithProjection(config).float()
    state = {f"text_model.{name}": value for name, value in clip.text_model.state_dict().items()}
    positions = "text_model.embeddings.position_embedding.weight"
    state[positions] = state[positions][:MAX_TOKENS]
    encoder.load_state_dict(state | {"text_projection.weight": clip.text_projection.weight})
    return encoder.eval().requires_grad_(False)


def second_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """The shape of the second CLIP: half as wide and as deep as the first."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=SMALL_WIDTH,
        intermediate_size=4 * SMALL_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=SMALL_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModelWithProjection(config)
    # As clip.py says: with CLIP's 0.02 so narrow a tower does not read the order of words.
    nn.init.normal_(encoder.text_model.embeddings.token_embedding.weight, std=0.1)
    nn.init.normal_(encoder.text_model.embeddings.position_embedding.weight, std=0.1)
    return encoder


def third_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """The shape of the T5: two layers, as wide as both CLIPs together."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH + SMALL_WIDTH,
        d_kv=16,
        num_heads=4,
        d_ff=128,
        num_layers=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        n_positions=MAX_TOKENS,
    )
    return T5EncoderModel(config)


@functools.cache
def make_tokenizers() -> tuple[CLIPTokenizer, T5Tokenizer]:
    """That of `testbed:clip`, and one whose pieces are words of English captions, and letters."""
    tokenizer = CLIPTokenizer.from_pretrained(
        resolve("testbed:clip"), model_max_length=MAX_TOKENS, trust_remote_code=False
    )
    said = [text for scene in all_scenes()[::7] for text in lexicon("en").captions(scene)]
    words = {word for text in said for word in text.split()}
    special = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    letters = "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "0123456789.,!?-'()"
    pieces = [("▁", -2.0), *((f"▁{word}", -1.0) for word in sorted(words))]
    pieces += [(letter, -5.0) for letter in letters]
    return tokenizer, T5Tokenizer(vocab=special + pieces, extra_ids=0, model_max_length=MAX_TOKENS)


def make_parts() -> nn.ModuleDict:
    """What trains, by its names in the pipeline."""
    tokenizer, tokenizer_3 = make_tokenizers()
    return nn.ModuleDict(
        {
            "transformer": make_transformer(),
            "text_encoder_2": second_encoder(tokenizer),
            "text_encoder_3": third_encoder(tokenizer_3),
        }
    )


@torch.no_grad()
def load_pool(work: Path) -> dict[str, Tensor]:
    """What the frozen parts give of the training scenes, computed once.

    Returns:
        latents (N, 4, 8, 8) with mean 0 and deviation 1, and their former `mean` and `std`;
        captions (N, 2): rows of a scene's caption and of its mirrored form's in ids (T, 16),
        ids_3 (T, 16), states (T, 16, 128) in fp16 and pooled (T, 128). The last row is that of the
        empty caption.
    """
    cache = work / f"sd3_pool-{POOL_SIZE}-{SINGLES_SHARE}.pt"
    if not cache.exists():
        scenes = sample_scenes("train", POOL_SIZE, seed=31, singles=SINGLES_SHARE)
        rows: dict[str, int] = {}
        said = [[caption(s, "en") for s in (scene, scene.mirrored)] for scene in scenes]
        captions = [[rows.setdefault(text, len(rows)) for text in pair] for pair in said]
        pool = {"captions": torch.tensor(captions), **read_captions([*rows, ""])}
        vae = Base.open("testbed:sd").load_vae(torch.device("cpu"))
        pictures = rendered_pool(scenes, seed=32)
        means = [vae.encode(to_unit(part)).latent_dist.mode() for part in pictures.split(64)]
        latents = torch.cat(means)
        pool |= {"mean": latents.mean(), "std": latents.std()}
        pool["latents"] = (latents - pool["mean"]) / pool["std"]
        torch.save(pool, cache)
    return torch.load(cache, weights_only=True)


def read_captions(texts: list[str]) -> dict[str, Tensor]:
    """The tokens of captions, and the first encoder's answers as the pipeline uses them."""
    tokenizer, tokenizer_3 = make_tokenizers()
    options = {"padding": "max_length", "max_length": MAX_TOKENS, "return_tensors": "pt"}
    ids, encoder = tokenizer(texts, **options).input_ids, first_encoder()
    states, pooled = [], []
    for part in ids.split(256):
        answer = encoder(part, output_hidden_states=True)
        states.append(answer.hidden_states[-2].half())
        pooled.append(answer.text_embeds)
    return {
        "ids": ids,
        "ids_3": tokenizer_3(texts, **options).input_ids,
        "states": torch.cat(states),
        "pooled": torch.cat(pooled),
    }


def encode(
    parts: nn.ModuleDict, pool: dict[str, Tensor], rows_B: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """States (B, 16 + length, 192) and pooled vectors (B, 192) as the stock pipeline makes them of
    captions, with `length` tokens of T5's.
    """
    second = parts["text_encoder_2"](pool["ids"][rows_B], output_hidden_states=True)
    ids_3 = F.pad(pool["ids_3"][rows_B], (0, length - MAX_TOKENS))  # T5's padding is 0
    third = parts["text_encoder_3"](ids_3).last_hidden_state
    clips = torch.cat([pool["states"][rows_B].float(), second.hidden_states[-2]], dim=2)
    pooled = torch.cat([pool["pooled"][rows_B], second.text_embeds], dim=1)
    return torch.cat([clips, third], dim=1), pooled


def loss_of(
    parts: nn.ModuleDict, pool: dict[str, Tensor], generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The velocity's mean squared error on a step's batch."""
    is_long = torch.rand((), generator=generator) < LONG_SHARE
    count, length = (LONG_BATCH, T5_LENGTH) if is_long else (BATCH, MAX_TOKENS)
    chosen_B = torch.randint(len(pool["latents"]), (count,), generator=generator)
    wording_B = torch.randint(2, (count,), generator=generator)
    rows_B = pool["captions"][chosen_B, wording_B]
    rows_B[torch.rand(count, generator=generator) < EMPTY_SHARE] = len(pool["ids"]) - 1
    # One time from each of equally likely spans, which makes the loss less noisy.
    spans_B = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    u_B = torch.special.ndtri(spans_B).sigmoid()
    times_B = 1000 * SHIFT * u_B / (1 + (SHIFT - 1) * u_B)
    clean = pool["latents"][chosen_B]
    noise = torch.randn(clean.shape, generator=generator)
    noisy, target = FlowMatching(SHIFT).add_noise(clean, noise, times_B)
    text = encode(parts, pool, rows_B, length)
    predicted = parts["transformer"](noisy, *text, times_B, return_dict=False)[0]
    return F.mse_loss(predicted, target), {"tokens": torch.tensor(length)}


def make_pipeline(parts: nn.ModuleDict, pool: dict[str, Tensor]) -> StableDiffusion3Pipeline:
    """The parts in a stock pipeline."""
    vae = Base.open("testbed:sd").load_vae(torch.device("cpu"))
    shift, scale = float(pool["mean"]), 1 / float(pool["std"])
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    tokenizer, tokenizer_3 = make_tokenizers()
    pipe = StableDiffusion3Pipeline(
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        text_encoder=first_encoder(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=tokenizer_3,
        **parts,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def report(pipe: StableDiffusion3Pipeline, step: int) -> None:
    """Prints the text accuracy on scenes of the validation split."""
    one = [s for s in sample_scenes("val", 400, seed=41) if s.second is None][:24]
    two = [s for s in sample_scenes("val", 400, seed=42) if s.second is not None][:48]
    judged = (EVALUATION.judge_prompts(pipe, scenes, "en") for scenes in (one, two))
    of_one, of_two = map(text_accuracy, judged)
    print(f"sd3 at step {step}: accuracy one thing {of_one:.3f}, two {of_two:.3f}", flush=True)


def export(pipe: StableDiffusion3Pipeline, folder: Path) -> None:
    """Writes the pipeline in fp16.

    Raises:
        RuntimeError: it is larger than 11 MB.
    """
    shutil.rmtree(folder, ignore_errors=True)
    copy.deepcopy(pipe).to(torch.float16).save_pretrained(folder)
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {total / 1e6:.2f} MB", flush=True)
    if total > MAX_BYTES:
        raise RuntimeError(f"testbed:sd3 is larger than {MAX_BYTES:,} bytes")


def main() -> None:
    """Command line."""
    options, _ = start(__doc__, num_steps=6_000)
    parts, pool = make_parts(), load_pool(options.work)
    pipe = make_pipeline(parts, pool)
    train(
        Recipe("sd3", options.num_steps, 1e-3, 100, fused=True, muon_learning_rate=1e-2),
        parts,
        lambda generator, _: loss_of(parts, pool, generator),
        options.work,
        look=lambda step: report(pipe, step),
    )
    export(pipe, WEIGHTS / "sd3")


if __name__ == "__main__":
    main()
