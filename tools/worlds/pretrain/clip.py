"""Pretrains the testbed's CLIP on English captions of the training split.

    python tools/worlds/pretrain/clip.py --work WORK

First the text tower alone learns to say the scene from its pooled state (a bag of words cannot: who
is red, who is left?); then it is locked and the vision tower and both projections learn InfoNCE in
both directions against it. Equal scenes are not negatives of one another; every caption brings a
hard negative (two attributes swapped between the things, or the relation turned round). The heads
that read scenes off the pooled states are not kept.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from crosslingual_worlds.drawn.captions import lexicon
from crosslingual_worlds.drawn.world import (
    COLORS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    all_scenes,
    distinct_scenes,
    render,
    sample_scenes,
)
from loop import Recipe, start, train
from pictures import rendered_pool, to_tensor, to_unit

BATCH = 192
MAX_TOKENS = 32
AUXILIARY_WEIGHT = 0.5


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-pair vocabulary learnt from English captions of shapes (motif words stay in pieces),
    in CLIP's order.

    All 256 bytes are in it twice, inside and at the end of a word, so that no script is unknown.
    """
    if not (folder / "tokenizer.json").exists():
        words = [text for scene in all_scenes()[::7] for text in lexicon("en").captions(scene)]
        learnt = CLIPTokenizer().train_new_from_iterator(
            iter(words), vocab_size=1024, show_progress=False
        )
        merges = [
            tuple(pair) for pair in json.loads(learnt.backend_tokenizer.to_str())["model"]["merges"]
        ]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(pair) for pair in merges)]
        tokens += ["<|startoftext|>", "<|endoftext|>"]
        vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
        CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS).save_pretrained(
            folder
        )
    tokenizer = CLIPTokenizer.from_pretrained(folder, trust_remote_code=False)
    if (
        len(tokenizer("a big red star").input_ids) != 6
        or tokenizer.unk_token_id in tokenizer("星").input_ids[1:-1]
    ):
        raise RuntimeError(
            f"the tokenizer in {folder} splits common words or lacks bytes: delete it, run again"
        )
    return tokenizer


def make_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The CLIP's shape: text 128 x 4 layers, vision 160 x 5 layers at patch 16, joint space 128."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 160,
        "intermediate_size": 640,
        "num_hidden_layers": 5,
        "num_attention_heads": 5,
        "image_size": 64,
        "patch_size": 16,
    }
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
    # CLIP's 0.02 leaves a tower of this width on a plateau where word order is not read: 0.40 nats
    # an attribute after 250 steps, against 0.25 with 0.1.
    nn.init.normal_(clip.text_model.embeddings.token_embedding.weight, std=0.1)
    nn.init.normal_(clip.text_model.embeddings.position_embedding.weight, std=0.1)
    return clip


def make_text_tower(clip: CLIPModel) -> nn.ModuleDict:
    """The text tower with its heads: what the first phase trains."""
    return nn.ModuleDict({"text_model": clip.text_model, "heads": SceneHeads(128)})


def make_vision_tower(clip: CLIPModel) -> nn.ModuleDict:
    """The vision tower, both projections and the temperature: what the second phase trains."""
    scale = nn.Module()
    scale.logit_scale = clip.logit_scale
    return nn.ModuleDict(
        {
            "vision_model": clip.vision_model,
            "visual_projection": clip.visual_projection,
            "text_projection": clip.text_projection,
            "scale": scale,
            "heads": SceneHeads(160),
        }
    )


class SceneHeads(nn.Module):
    """Reads arrangement and both things' attributes off a pooled state; for pretraining alone."""

    sizes = (3, *(2 * [len(SHAPES) + 1, len(COLORS) + 1, len(SIZES) + 1]))

    def __init__(self, width: int):
        """`width` of the pooled state."""
        super().__init__()
        self.read = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 256), nn.GELU(), nn.Linear(256, sum(self.sizes))
        )

    def forward(self, pooled_BD: Tensor, targets_BA: Tensor) -> Tensor:
        """Mean cross-entropy over the seven attributes."""
        logits = self.read(pooled_BD).split(self.sizes, dim=1)
        losses = [F.cross_entropy(part, targets_BA[:, i]) for i, part in enumerate(logits)]
        return torch.stack(losses).mean()


def scene_targets(scene: Scene) -> list[int]:
    """Arrangement and attributes of the canonical scene as class numbers."""
    scene = scene.canonical
    arrangement = [None, "left_of", "above"].index(scene.relation)
    row = [arrangement]
    for thing in (scene.first, scene.second):
        if thing is None:
            row += [len(SHAPES), len(COLORS), len(SIZES)]
        else:
            row += [
                SHAPES.index(thing.shape),
                list(COLORS).index(thing.color),
                list(SIZES).index(thing.size),
            ]
    return row


def hard_negative(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene that shares most words with the given one and is another."""
    first, second = scene.first, scene.second
    if second is None:
        color = rng.choice([c for c in COLORS if c != first.color])
        return Scene(Thing(first.shape, str(color), first.size))
    swaps = [Scene(second, scene.relation, first)]
    for name in ("color", "size"):
        one = dataclasses.replace(first, **{name: getattr(second, name)})
        two = dataclasses.replace(second, **{name: getattr(first, name)})
        swaps.append(Scene(one, scene.relation, two))
    turned = {"left_of": "above", "right_of": "below", "above": "left_of", "below": "right_of"}
    swaps.append(Scene(first, turned[scene.relation], second))
    swaps = [swap for swap in swaps if swap.scene_id != scene.scene_id]
    return swaps[int(rng.integers(len(swaps)))]


def contrastive(image_BD: Tensor, text_ND: Tensor, scale: Tensor, same_BN: Tensor) -> Tensor:
    """Symmetric InfoNCE of B pictures against N >= B captions, the first B of which are theirs, in
    order.

    `same_BN` marks captions that say the picture's own scene: those off the diagonal are left out.
    """
    batch = image_BD.shape[0]
    logits = scale * F.normalize(image_BD, dim=-1) @ F.normalize(text_ND, dim=-1).T
    others = same_BN & ~torch.eye(batch, text_ND.shape[0], dtype=torch.bool)
    logits = logits.masked_fill(others, float("-inf"))
    target = torch.arange(batch)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :batch].T, target))


@torch.no_grad()
def recall_at_1(clip: CLIPModel, tokenizer: CLIPTokenizer, seed: int) -> tuple[float, float]:
    """Text-to-image and image-to-text R@1 among 1,000 distinct held-out scenes."""
    scenes = distinct_scenes("test", 1000, seed)
    rng = np.random.default_rng(seed + 1)
    pictures = to_unit(to_tensor([render(scene, rng) for scene in scenes]))
    tokens = tokenizer(
        [lexicon("en").captions(s)[0] for s in scenes], padding="max_length", return_tensors="pt"
    )
    image = F.normalize(clip.get_image_features(pixel_values=pictures).pooler_output, dim=-1)
    text = F.normalize(clip.get_text_features(**tokens).pooler_output, dim=-1)
    similarity = text @ image.T
    right = torch.arange(len(scenes))
    found = (similarity.argmax(axis) == right for axis in (1, 0))
    by_text, by_image = (float(each.float().mean()) for each in found)
    return by_text, by_image


def main() -> None:
    """Command line."""
    options, rank = start(__doc__, num_text_steps=500, num_steps=400)
    tokenizer = make_tokenizer(options.work / "clip_tokenizer")
    clip = make_clip(tokenizer)
    scenes = sample_scenes("train", 40_000, seed=21, singles=0.15)
    targets = torch.tensor([scene_targets(scene) for scene in scenes])
    text_tower, vision_tower = make_text_tower(clip), make_vision_tower(clip)

    def say(batch: list[Scene]) -> dict[str, Tensor]:
        texts = [lexicon("en").captions(scene)[0] for scene in batch]
        return tokenizer(texts, padding="longest", return_tensors="pt")

    def text_loss(_: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng((24, step, rank))
        chosen = rng.integers(0, len(scenes), BATCH)
        said = [scenes[i] if rng.random() < 0.5 else scenes[i].mirrored for i in chosen]
        pooled = clip.text_model(**say(said)).pooler_output
        return text_tower["heads"](pooled, targets[torch.from_numpy(chosen)]), {}

    recipe = Recipe("clip_text", options.num_text_steps, 1e-3)
    train(recipe, text_tower, text_loss, options.work, save_every_s=30)
    if options.num_steps == 0:
        return
    clip.text_model.requires_grad_(False)
    pool = rendered_pool(scenes, seed=22)

    def vision_loss(_: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng((23, step, rank))
        chosen = rng.integers(0, len(scenes), BATCH)
        pictures = torch.roll(
            pool[torch.from_numpy(chosen)], tuple(rng.integers(-2, 3, 2)), dims=(2, 3)
        )
        said = [scenes[i] if rng.random() < 0.5 else scenes[i].mirrored for i in chosen]
        negatives = [hard_negative(scene, rng) for scene in said]
        with torch.no_grad():
            text = clip.text_model(**say(said + negatives)).pooler_output
        vision = clip.vision_model(pixel_values=to_unit(pictures)).pooler_output
        ids = np.array([scene.scene_id for scene in said + negatives])
        same = torch.from_numpy(ids[:BATCH, None] == ids[None, :])
        scale = clip.logit_scale.exp().clamp(max=100)
        itc = contrastive(clip.visual_projection(vision), clip.text_projection(text), scale, same)
        read = vision_tower["heads"](vision, targets[torch.from_numpy(chosen)])
        return itc + AUXILIARY_WEIGHT * read, {"itc": itc.detach(), "read": read.detach()}

    def look(step: int) -> None:
        recalls = recall_at_1(clip, tokenizer, seed=5)
        print(f"clip at step {step}: R@1 text->image, image->text {recalls}", flush=True)

    recipe = Recipe("clip_vision", options.num_steps, 1e-3)
    train(recipe, vision_tower, vision_loss, options.work, look=look, look_every=250)


if __name__ == "__main__":
    main()
