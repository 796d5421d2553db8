"""The CLIP of `emoji:clip`, whose text half is also that of `emoji:sd`.

First the text tower alone learns to tell the names apart: from the pooled state of a name, or of
some of its keywords, heads read which emoji it is, its keywords and its picture's latent. (On
states that do not tell names apart a UNet learns kinds and hardly any name; what a picture looks
like is learnt here at a tenth of the UNet's cost.) Then the tower is locked, and the vision
tower and both projections learn InfoNCE against it. The heads are not kept.
"""

import json
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from crosslingual.worlds import model_folder
from crosslingual_worlds.emoji.names import Emoji, taught_emoji
from crosslingual_worlds.emoji.pictures import load_pictures
from loop import Recipe, train
from vae import SHIPPED_SETS, encode_pictures, to_unit, train_vae

MAX_TOKENS = 24
WIDTH = 128
TEXT_BATCH = 128
IMAGE_BATCH = 96
LATENT_WEIGHT = 4.0
WORDINGS = ("{}", "{} emoji", "a {}", "a picture of {}", "{}, emoji")


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-pair vocabulary learnt from the taught English names and keywords, in CLIP's order.

    All 256 bytes are in it twice, inside and at the end of a word, so that no script is unknown.
    """
    if not (folder / "tokenizer.json").exists():
        words = [text for emoji in taught_emoji() for text in (4 * (emoji.name,) + emoji.keywords)]
        learnt = CLIPTokenizer().train_new_from_iterator(
            iter(words), vocab_size=2560, show_progress=False
        )
        merges = json.loads(learnt.backend_tokenizer.to_str())["model"]["merges"]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokens = [*alphabet, *(f"{c}</w>" for c in alphabet), *("".join(pair) for pair in merges)]
        tokens += ["<|startoftext|>", "<|endoftext|>"]
        vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
        merges = [tuple(pair) for pair in merges]
        CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS).save_pretrained(
            folder
        )
    return CLIPTokenizer.from_pretrained(folder, trust_remote_code=False)


def make_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The CLIP's shape: text 128 x 4 layers, vision 160 x 5 layers at patch 16, joint space 128."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
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
    # CLIP's own 0.02 leaves so narrow a tower on a plateau where word order is not read.
    nn.init.normal_(clip.text_model.embeddings.token_embedding.weight, std=0.1)
    nn.init.normal_(clip.text_model.embeddings.position_embedding.weight, std=0.1)
    return clip


class TextTargets:
    """What the text tower's heads read off: emoji, keywords and latent of a taught emoji.

    Attributes:
        keywords_NK: a distribution over keywords that at least two emoji share.
        latents_NP: of the Noto picture, at unit variance.
    """

    def __init__(self, taught: tuple[Emoji, ...], latents: Tensor):
        """`taught` emoji in the order of their class numbers, and their latents (N, 12, 8, 8)."""
        counts = Counter(word for emoji in taught for word in emoji.keywords)
        index = {word: i for i, word in enumerate(w for w, n in sorted(counts.items()) if n > 1)}
        rows = torch.zeros(len(taught), len(index))
        for row, emoji in zip(rows, taught, strict=True):
            row[[index[word] for word in emoji.keywords if word in index]] = 1.0
        self.keywords_NK = rows / rows.sum(dim=1, keepdim=True).clamp(min=1.0)
        self.latents_NP = latents.flatten(1)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Outputs of the heads."""
        return len(self.keywords_NK), self.keywords_NK.shape[1], self.latents_NP.shape[1]

    def loss(self, read_BH: Tensor, chosen_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropies of emoji and keywords, squared error of the latent."""
        which, words, pixels = read_BH.split(self.sizes, dim=1)
        parts = {
            "emoji": F.cross_entropy(which, chosen_B, label_smoothing=0.02),
            "keywords": F.cross_entropy(words, self.keywords_NK[chosen_B]),
            "latent": F.mse_loss(pixels, self.latents_NP[chosen_B]),
        }
        loss = parts["emoji"] + 0.3 * parts["keywords"] + LATENT_WEIGHT * parts["latent"]
        right = (which.argmax(dim=1) == chosen_B).float().mean()
        return loss, {**{name: p.detach() for name, p in parts.items()}, "right": right}


def draw_prompt(emoji: Emoji, generator: torch.Generator) -> str:
    """Half of the prompts are names; the others name it in other words or list keywords."""

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    kind = below(10)
    if kind < 5 or not emoji.keywords:
        return emoji.name
    if kind < 7:
        return WORDINGS[below(len(WORDINGS))].format(emoji.name)
    order = torch.randperm(len(emoji.keywords), generator=generator)[: 1 + below(4)]
    return ", ".join(emoji.keywords[i] for i in order)


def train_text(work: Path, num_steps: int = 800) -> tuple[CLIPModel, CLIPTokenizer]:
    """Trains the text tower, or goes on; returns the CLIP with its vision tower untrained."""
    taught = taught_emoji()
    latents, _ = encode_pictures(train_vae(work))
    torch.manual_seed(0)
    tokenizer = make_tokenizer(work / "clip_tokenizer")
    clip, targets = make_clip(tokenizer), TextTargets(taught, latents)
    heads = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, sum(targets.sizes)))
    tower = nn.ModuleDict({"text_model": clip.text_model, "heads": heads})

    def loss_of_step(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chosen_B = torch.randint(len(taught), (TEXT_BATCH,), generator=generator)
        texts = [draw_prompt(taught[i], generator) for i in chosen_B]
        whole = torch.rand((), generator=generator) < 0.25
        padding = "max_length" if whole else "longest"
        tokens = tokenizer(texts, padding=padding, truncation=True, return_tensors="pt")
        states_BLD = clip.text_model(tokens.input_ids).last_hidden_state
        # Read from the end token or any of the padding after it: a UNet attends to all of them.
        end_B = tokens.attention_mask.sum(dim=1) - 1
        draws_B = torch.rand(TEXT_BATCH, generator=generator)
        place_B = end_B + (draws_B * (states_BLD.shape[1] - end_B)).long()
        return targets.loss(heads(states_BLD[torch.arange(TEXT_BATCH), place_B]), chosen_B)

    train(Recipe("clip_text", num_steps, 1.5e-3), tower, loss_of_step, work)
    return clip, tokenizer


@torch.no_grad()
def text_states(encoder: nn.Module, tokenizer: CLIPTokenizer, texts: list[str]):
    """The tower's output on prompts as a stock pipeline pads them: states (N, 24, 128), pooled."""
    tokens = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return encoder(tokens.input_ids)


def train_vision(work: Path, num_steps: int = 1400) -> tuple[CLIPModel, CLIPTokenizer]:
    """Trains vision tower and projections against the locked text tower, or goes on.

    A picture chooses among all taught names, a name among the pictures of the batch. Pictures of
    three sets, Noto's twice, are moved by up to 3 pixels and change in brightness. None is
    mirrored, for left and right are said in names.
    """
    taught = taught_emoji()
    clip, tokenizer = train_text(work)
    clip.text_model.eval().requires_grad_(False)
    drawn = CLIPModel.from_pretrained(
        model_folder("testbed:clip"), trust_remote_code=False
    )  # of the same vision shape
    clip.vision_model.load_state_dict(drawn.vision_model.state_dict())
    pooled_ND = text_states(clip.text_model, tokenizer, [e.name for e in taught]).pooler_output
    found = [
        (row, one[emoji.key])
        for one in map(load_pictures, ("noto", *SHIPPED_SETS))
        for row, emoji in enumerate(taught)
        if emoji.key in one
    ]
    names_P = torch.tensor([row for row, _ in found])
    pictures = F.pad(to_unit([picture for _, picture in found]), (3, 3, 3, 3), value=1.0)
    scale = nn.Module()
    scale.logit_scale = clip.logit_scale
    tower = nn.ModuleDict(
        {
            "vision_model": clip.vision_model,
            "visual_projection": clip.visual_projection,
            "text_projection": clip.text_projection,
            "scale": scale,
        }
    )

    def loss_of_step(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        chosen_B = torch.randint(len(pictures), (IMAGE_BATCH,), generator=generator)
        places = zip(chosen_B, torch.randint(7, (IMAGE_BATCH, 2), generator=generator), strict=True)
        light_B = 1.0 + 0.15 * torch.randn(IMAGE_BATCH, 1, 1, 1, generator=generator)
        moved = [pictures[i, :, y : y + 64, x : x + 64] for i, (y, x) in places]
        batch = (torch.stack(moved) * light_B).clamp(-1.0, 1.0)
        image_BD = F.normalize(
            clip.visual_projection(clip.vision_model(batch).pooler_output), dim=1
        )
        text_ND = F.normalize(clip.text_projection(pooled_ND), dim=1)
        logits_BN = clip.logit_scale.exp().clamp(max=100.0) * image_BD @ text_ND.T
        label_B = names_P[chosen_B]
        to_text = F.cross_entropy(logits_BN, label_B)
        # Several pictures of a batch may be of one emoji: its name may choose any of them.
        same_BB = (label_B[:, None] == label_B[None, :]).float()
        to_image = F.cross_entropy(logits_BN[:, label_B].T, same_BB / same_BB.sum(1, keepdim=True))
        right = (logits_BN.argmax(dim=1) == label_B).float().mean()
        parts = {"to_text": to_text.detach(), "to_image": to_image.detach(), "right": right}
        return 0.5 * (to_text + to_image), parts

    train(Recipe("clip_vision", num_steps, 1e-3), tower, loss_of_step, work)
    return clip, tokenizer
