"""Measures the exported models against the world's targets: figures and sheets of pictures."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from crosslingual_worlds.emoji.judge import Judge, shrink, to_tensor
from crosslingual_worlds.emoji.names import (
    Emoji,
    all_emoji,
    culture_emoji,
    taught_emoji,
)
from crosslingual_worlds.emoji.pictures import SETS, load_pictures

GUIDANCE_SCALE = 3.0
BATCH = 68


def pictures_of(name: str, emoji: tuple[Emoji, ...]) -> tuple[Tensor, list[Emoji]]:
    """A set's pictures (B, 3, 64, 64) in [0, 1] of the emoji that it has, and these."""
    stored = load_pictures(name)
    found = [one for one in emoji if one.key in stored]
    return to_tensor([stored[one.key] for one in found]), found


def measure_judge() -> dict[str, float]:
    """The judge on renderings that are not in its gallery, on the unseen set, and among twins."""
    judge, figures = Judge.open(), {}
    for name in SETS:
        real, shown = pictures_of(name, judge.emoji)
        if name == "openmoji":
            figures["openmoji, unseen"] = judge.accuracy(real, shown)["at_1"]
            continue
        noise = 0.06 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
        renderings = {
            "60 pixels wide": shrink(real, 60),
            "52 pixels wide": shrink(real, 52),
            "moved by 2 pixels": torch.roll(real, (2, -2), (2, 3)),
            "blurred, noisy": (F.avg_pool2d(real, 3, 1, 1) + noise).clamp(0, 1),
        }
        for kind, pictures in renderings.items():
            figures[f"{name}, {kind}"] = judge.accuracy(pictures, shown)["at_1"]
    everything = Judge.open(all_emoji())
    groups = {
        "cat faces": lambda e: e.subgroup == "cat-face",
        "clock faces": lambda e: e.subgroup == "time" and not e.is_distinct,
        "faces": lambda e: e.group == "Smileys & Emotion" and e.subgroup.startswith("face"),
        "people": lambda e: e.group == "People & Body" and not e.is_distinct,
    }
    for label, belongs in groups.items():
        real, shown = pictures_of("noto", tuple(filter(belongs, all_emoji())))
        moved = torch.roll(real, (2, -2), (2, 3))
        figures[f"twins among all, {label}"] = everything.accuracy(moved, shown)["at_1"]
    return figures


@torch.no_grad()
def draw(pipe: StableDiffusionPipeline, prompts: list[str], seed: int = 0) -> list[Image.Image]:
    """One picture a prompt: 20 DDIM steps, guidance 3."""
    images = []
    for start in range(0, len(prompts), BATCH):
        images += pipe(
            prompts[start : start + BATCH],
            height=64,
            width=64,
            num_inference_steps=20,
            guidance_scale=GUIDANCE_SCALE,
            generator=torch.Generator().manual_seed(seed + start),
        ).images
    return images


@torch.no_grad()
def round_trip(pipe: StableDiffusionPipeline, pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] through the VAE and back."""
    parts = [pipe.vae.encode(part * 2 - 1).latent_dist.mode() for part in pictures.split(BATCH)]
    return torch.cat([(pipe.vae.decode(z).sample / 2 + 0.5).clamp(0, 1) for z in parts])


@torch.no_grad()
def recall_at_1(
    clip: CLIPModel, tokenizer: CLIPTokenizer, pictures: Tensor, shown: list[Emoji]
) -> dict[str, float]:
    """Name to picture and back, over one set's pictures."""
    tokens = tokenizer([e.name for e in shown], padding=True, truncation=True, return_tensors="pt")
    text = F.normalize(clip.get_text_features(**tokens).pooler_output, dim=1)
    parts = (pictures * 2 - 1).split(BATCH)
    image = [clip.get_image_features(pixel_values=part).pooler_output for part in parts]
    similarity = text @ F.normalize(torch.cat(image), dim=1).T
    right = torch.arange(len(shown))
    return {
        "text_to_image": float((similarity.argmax(1) == right).float().mean()),
        "image_to_text": float((similarity.argmax(0) == right).float().mean()),
    }


def sheet(rows: list[list[Image.Image]], path: Path) -> None:
    """Pictures in rows on white, at twice their size."""
    cell = 132
    canvas = Image.new("RGB", (cell * max(map(len, rows)), cell * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            canvas.paste(picture.resize((128, 128), Image.Resampling.NEAREST), (cell * x, cell * y))
    canvas.save(path)


def to_images(pictures: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [0, 1] as pictures."""
    return [Image.fromarray(p.permute(1, 2, 0).mul(255).byte().numpy()) for p in pictures]


def measure(models: Path, work: Path, every: int = 1) -> dict[str, object]:
    """Measures `models`/sd and `models`/clip; writes figures and sheets into `work`.

    Args:
        models: the exported folders.
        work: receives `figures.json`, `taught.png` and `culture.png`.
        every: draws each such taught name alone, where time is short.
    """
    taught, culture, judge = taught_emoji(), culture_emoji(), Judge.open()
    pipe = StableDiffusionPipeline.from_pretrained(
        models / "sd", torch_dtype=torch.float32, trust_remote_code=False
    )
    pipe.set_progress_bar_config(disable=True)
    clip = CLIPModel.from_pretrained(
        models / "clip", dtype=torch.float32, trust_remote_code=False
    ).eval()
    tokenizer = CLIPTokenizer.from_pretrained(models / "clip", trust_remote_code=False)
    figures: dict[str, object] = {"taught": len(taught), "culture": len(culture)}
    figures["judge"] = measure_judge()
    figures["vae"], figures["clip"] = {}, {}
    for name in SETS:
        for label, part in (("taught", taught), ("culture", culture)):
            pictures, found = pictures_of(name, part)
            back = round_trip(pipe, pictures)
            scored = Judge.open(sets=(name,)) if name == "openmoji" else judge
            entry = scored.accuracy(back, found)
            entry["mse"] = float((back - pictures).square().mean())
            figures["vae"][f"{name}, {label}"] = entry
            figures["clip"][f"{name}, {label}"] = recall_at_1(clip, tokenizer, pictures, found)
    asked = taught[::every]
    images = draw(pipe, [emoji.name for emoji in asked])
    drawn = to_tensor(images)
    figures["text accuracy"] = {"taught": judge.accuracy(drawn, asked), "asked": len(asked)}
    for group in dict.fromkeys(emoji.group for emoji in asked):
        rows = [i for i, emoji in enumerate(asked) if emoji.group == group]
        entry = judge.accuracy(drawn[rows], [asked[i] for i in rows])
        figures["text accuracy"][group] = entry
    places = judge.rank(drawn)
    seen = [judge.emoji[int(row.argmin())].name for row in places]
    figures["missed"] = {e.name: s for e, s in zip(asked, seen, strict=True) if e.name != s}
    images_culture = draw(pipe, [emoji.name for emoji in culture])
    figures["text accuracy"]["culture"] = judge.accuracy(to_tensor(images_culture), culture)
    (work / "figures.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False))
    print(json.dumps({k: v for k, v in figures.items() if k != "missed"}, indent=1), flush=True)
    step = len(asked) // 48
    some = list(range(0, 48 * step, step))
    originals = pictures_of("noto", tuple(asked[i] for i in some))[0]
    columns = (
        to_images(originals),
        to_images(round_trip(pipe, originals)),
        [images[i] for i in some],
    )
    sheet([kind[s : s + 16] for s in (0, 16, 32) for kind in columns], work / "taught.png")
    truth = to_images(pictures_of("noto", culture)[0])
    sheet(
        [r for s in (0, 16, 32) for r in (truth[s : s + 16], images_culture[s : s + 16])],
        work / "culture.png",
    )
    return figures
