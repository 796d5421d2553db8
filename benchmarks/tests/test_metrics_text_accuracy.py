"""Text accuracy by choice: right only if strictly above every hard negative."""

import numpy as np
import pytest
import torch
from PIL import Image

from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual_benchmarks.metrics.text_accuracy import text_choice
from crosslingual_worlds.drawn.captions import caption
from crosslingual_worlds.drawn.world import distinct_scenes, render

SCENES = distinct_scenes("test", 16, seed=0)
RIGHT = [caption(scene, "en") for scene in SCENES]
WRONG = [[RIGHT[(place + step) % 16] for step in (1, 5, 11)] for place in range(16)]


@pytest.fixture(scope="module")
def clip():
    return load_clip("testbed:clip")


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [render(scene, draw) for scene in SCENES]


@pytest.fixture
def spoilt():
    """A CLIP of one's own, to break."""
    return load_clip("testbed:clip")


def test_choices_equal_a_loop_over_cosines(clip, pictures):
    found = text_choice(clip, pictures, RIGHT, WRONG, batch_size=7)
    expected = []
    for picture, right, wrong in zip(pictures, RIGHT, WRONG, strict=True):
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
        image, texts = clip.encode_images(pixels), clip.encode_texts([right, *wrong])
        cosines = torch.nn.functional.cosine_similarity(image, texts).tolist()
        expected.append(cosines[0] > max(cosines[1:]))
    assert found.is_right_N.tolist() == expected
    assert found.text_accuracy == sum(expected) / 16 > 0.8
    assert (found.num_ties, found.num_cut, found.chance) == (0, 0, 0.25)
    assert found.protocol["ties"] == "pessimistic" and found.protocol["clip"] == "testbed:clip"


def test_pictures_of_another_prompt_are_wrong(clip, pictures):
    found = text_choice(clip, [*pictures[1:], pictures[0]], RIGHT, WRONG)
    assert found.text_accuracy < 0.2


def test_an_encoder_that_says_the_same_of_every_text_scores_zero(spoilt, pictures):
    norm = spoilt.model.text_model.final_layer_norm
    norm.weight.zero_()
    norm.bias.copy_(torch.linspace(-1, 1, len(norm.bias)))
    found = text_choice(spoilt, pictures, RIGHT, WRONG)
    assert (found.text_accuracy, found.num_ties) == (0, 16)


def test_a_random_encoder_is_right_as_often_as_chance(clip, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for name in ("encode_images", "encode_texts"):
        monkeypatch.setattr(
            FrozenCLIP, name, lambda _, batch: torch.randn(len(batch), 64, generator=generator)
        )
    blank = [Image.new("RGB", (64, 64))] * 1200
    rights = [f"right {i}" for i in range(1200)]
    wrongs = [[f"wrong {i} {j}" for j in range(1 + 2 * (i % 2))] for i in range(1200)]
    found = text_choice(clip, blank, rights, wrongs)
    assert found.chance == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert found.text_accuracy == pytest.approx(found.chance, abs=4 * (0.25 / 1200) ** 0.5)


def test_captions_that_differ_beyond_the_context_tie_and_are_wrong(clip, pictures):
    long = ", on a white background" * 10
    found = text_choice(clip, pictures[:1], [RIGHT[0] + long], [[RIGHT[0] + long + " twice"]])
    assert (found.text_accuracy, found.num_ties, found.num_cut) == (0, 1, 2)


def test_nan_embeddings_are_refused(spoilt, pictures):
    spoilt.model.text_projection.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"embedding of caption 0 is not finite \(64 of 64"):
        text_choice(spoilt, pictures, RIGHT, WRONG)


@pytest.mark.parametrize(
    ("num_pictures", "right", "wrong", "message"),
    [
        (2, ["a", "b"], [["c"]], "2 right captions and 1 lists of wrong ones"),
        (2, ["a", "b"], [["c"], []], "picture 1 has no wrong caption"),
        (2, ["a", "b"], [["c", " a"], ["d"]], "picture 0 has its right caption 'a' among"),
        (1, ["a", "b"], [["c"], ["d"]], "1 pictures for 2"),
        (0, [], [], "no pictures are given"),
        (1, ["a"], [[""]], "caption 1 is blank"),
    ],
)
def test_choices_that_make_no_sense_are_refused(
    clip, pictures, num_pictures, right, wrong, message
):
    with pytest.raises(ValueError, match=message):
        text_choice(clip, pictures[:num_pictures], right, wrong)
