"""`objective: clip_attention`: by hand, by its equation, what trains, and from shards to a row."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel

import iap
from crosslingual.frozen.clip import load_clip
from crosslingual_worlds.testing.conformance.command import refusal
from crosslingual_worlds.testing.conformance.training import files_of, rows, validations
from crosslingual_worlds.testing.fixtures import Command, succeeded
from crosslingual_worlds.testing.miniatures import RESOLUTION, write_clip
from iap.artifact import load_encoder
from iap.clip import open_clip, picture_patches
from iap.method import clip_attend, expand_states
from iap.settings import TrainSettings

VISION = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
VISION |= {"num_attention_heads": 2, "image_size": RESOLUTION, "patch_size": 16}
PATCHES, JOINT = (RESOLUTION // 16) ** 2, 12


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def clip(sd: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP whose text encoder is that of `sd`."""
    folder = write_clip(tmp_path_factory.mktemp("clip"), JOINT, VISION)
    model = CLIPModel.from_pretrained(folder)
    text = CLIPTextModel.from_pretrained(sd, subfolder="text_encoder").state_dict()
    text = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    model.text_model.load_state_dict(text)
    model.save_pretrained(folder)
    return folder


def test_reading_by_hand() -> None:
    """A patch along the first of two states, scale ln 3: weights 3 / 4 and 1 / 4 of the states."""
    patch, states = torch.tensor([[[5.0, 0.0]]]), torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])
    assert clip_attend(patch, states, math.log(3))[0, 0].tolist() == pytest.approx([1.5, 1.0])


def test_reading_equals_its_equation() -> None:
    patches, states = draw(2, 3, 4), draw(2, 5, 4, seed=1)
    expected = torch.zeros(2, 3, 4)
    for b in range(2):
        for i in range(3):
            cosines = [F.cosine_similarity(patches[b, i], s, dim=0).item() for s in states[b]]
            weights = [math.exp(7.0 * cosine) for cosine in cosines]
            for weight, state in zip(weights, states[b], strict=True):
                expected[b, i] += weight / sum(weights) * state
    torch.testing.assert_close(clip_attend(patches, states, 7.0), expected)


def test_padding_weighs_as_its_copies_and_a_mask_hides_it() -> None:
    patches, states = draw(2, 3, 4), draw(2, 5, 4, seed=1)
    copies = clip_attend(patches, expand_states(states, 4), 7.0)
    torch.testing.assert_close(clip_attend(patches, states, 7.0, 4), copies)
    bias = torch.tensor([0.0, 0.0, 0.0, -1e4, -1e4]).expand(2, 1, 1, 5)
    torch.testing.assert_close(
        clip_attend(patches, states, 7.0, 4, bias), clip_attend(patches, states[:, :3], 7.0)
    )


def test_patches_are_projected_as_the_class_state_is(clip: str) -> None:
    """Resized pictures give as many; the class state, the same way, is CLIP's own embedding."""
    loaded, images = load_clip(clip), draw(2, 3, RESOLUTION, RESOLUTION).clamp(-1, 1)
    found = picture_patches(loaded, images)
    assert found.shape == (2, PATCHES, JOINT)
    assert picture_patches(loaded, draw(2, 3, 80, 80).clamp(-1, 1)).shape == found.shape
    seen = loaded.model.vision_model(pixel_values=loaded.preprocess(images)).last_hidden_state
    project = nn.Sequential(
        loaded.model.vision_model.post_layernorm, loaded.model.visual_projection
    )
    torch.testing.assert_close(project(seen[:, 0]), loaded.encode_images(images))
    torch.testing.assert_close(project(seen[:, 1:]), found)


def test_a_clip_whose_text_encoder_the_base_does_not_have_is_refused(tmp_path: Path) -> None:
    settings = TrainSettings(clip=write_clip(tmp_path, JOINT, VISION))
    with pytest.raises(ValueError, match=r"does not read the last states of .* by --clip"):
        open_clip(settings, torch.zeros(16, 16))


def test_training_learns_resumes_exports_draws_and_embeds(
    command: Command,
    parts: dict[str, Any],
    recipe: dict[str, Any],
    clip: str,
    shards: str,
    exported: Path,
    tmp_path: Path,
) -> None:
    own = {"objective": "clip_attention", "clip": clip}
    places = {"shards": shards, "features_dir": tmp_path / "features", "encode_batch_size": 8}
    succeeded(command("features", **places, **parts, **own))
    settings = {**recipe, **own, "train_data": places["features_dir"], "validation_steps": 3}
    settings |= {"validation_data": places["features_dir"]}
    assert "are stale: clip was None" in refusal(
        command("train", output_dir=tmp_path / "x", **{**recipe, **own})
    )
    succeeded(command("train", output_dir=tmp_path / "whole", **settings))
    before, after = validations(tmp_path / "whole")
    assert after < before
    run = {**settings, "output_dir": tmp_path / "run"}
    succeeded(command("train", {"terminate": [0, 1]}, **run))
    succeeded(command("train", **run, resume_from_checkpoint="latest"))
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    folder = tmp_path / "exported"
    succeeded(command("export", checkpoint=tmp_path / "run", output_dir=folder))
    assert files_of(folder) == files_of(tmp_path / "whole" / "encoder")
    size = {"height": 32, "width": 32, "num_inference_steps": 1, "prompt": "maison"}
    succeeded(command("generate", adapter=folder, output_dir=tmp_path / "pictures", **size))

    embedder = iap.METHOD.load_embedder(str(folder))
    found = embedder.embed_text(["maison 3", "ein Haus"])
    model, tokenizer, _ = load_encoder(folder)
    state = model(**tokenizer(["maison 3"], return_tensors="pt")).last_hidden_state[0, 0]
    expected = F.normalize(embedder.clip.model.text_projection(state), dim=0)
    torch.testing.assert_close(found[0], expected)
    picture = Image.new("RGB", (RESOLUTION, RESOLUTION), "red")
    own = load_clip(clip).encode_images(
        torch.tensor([1.0, -1, -1])[None, :, None, None].expand(1, 3, RESOLUTION, RESOLUTION)
    )
    torch.testing.assert_close(embedder.embed_image([picture]), F.normalize(own, dim=-1))
    with pytest.raises(ValueError, match="train with --objective clip_attention"):
        iap.METHOD.load_embedder(str(exported))
