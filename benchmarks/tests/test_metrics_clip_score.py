"""CLIP score equals a plain transcription through transformers, long captions included."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from crosslingual.frozen.clip import FrozenCLIP, load_clip
from crosslingual_benchmarks.metrics.clip_embedding import embed_captions, unit_rows
from crosslingual_benchmarks.metrics.clip_score import ClipScore, clip_score
from crosslingual_worlds.drawn import WEIGHTS as TESTBED_WEIGHTS
from crosslingual_worlds.drawn.captions import caption
from crosslingual_worlds.drawn.world import distinct_scenes, render

FOLDER = TESTBED_WEIGHTS / "clip"
SCENES = distinct_scenes("test", 6, seed=0)
CAPTIONS = [caption(scene, "en") for scene in SCENES]


@pytest.fixture(scope="module")
def clip():
    return load_clip("testbed:clip")


@pytest.fixture(scope="module")
def model():
    return CLIPModel.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [render(scene, draw) for scene in SCENES]


@torch.no_grad()
def plain_cosines(model, pictures, token_ids):
    """A pair at a time, by transformers alone."""
    processor = CLIPImageProcessorPil.from_pretrained(FOLDER)
    found = []
    for picture, ids in zip(pictures, token_ids, strict=True):
        pixels = processor(picture, return_tensors="pt").pixel_values
        image = model.get_image_features(pixel_values=pixels).pooler_output[0]
        text = model.get_text_features(input_ids=torch.tensor([ids])).pooler_output[0]
        found.append(torch.dot(image, text) / (image.norm() * text.norm()))
    return torch.stack(found)


def test_cosines_equal_the_transcription(clip, model, pictures):
    ids = AutoTokenizer.from_pretrained(FOLDER)(CAPTIONS).input_ids
    expected = plain_cosines(model, pictures, ids)
    found = clip_score(clip, pictures, CAPTIONS, batch_size=3)
    torch.testing.assert_close(found.cosine_N, expected, atol=1e-5, rtol=0)
    assert found.cosine == pytest.approx(expected.mean().item(), abs=1e-5)
    assert found.clip_score == pytest.approx(100 * expected.clamp(min=0).mean().item(), abs=1e-3)
    assert found.num_cut == 0
    shifted = clip_score(clip, pictures, [*CAPTIONS[1:], CAPTIONS[0]])
    assert shifted.cosine < found.cosine - 0.1


def test_larger_pictures_are_fitted_as_transformers_does(clip, model, pictures):
    large = [picture.resize((150, 128), Image.Resampling.BICUBIC) for picture in pictures]
    ids = AutoTokenizer.from_pretrained(FOLDER)(CAPTIONS).input_ids
    found = clip_score(clip, large, CAPTIONS)
    # the crop may lie half a pixel further
    torch.testing.assert_close(found.cosine_N, plain_cosines(model, large, ids), atol=0.03, rtol=0)


def test_negative_cosines_count_as_zero_in_the_score_and_not_in_the_mean():
    found = ClipScore(torch.tensor([0.5, -0.3, 0.1]), 0, {})
    assert found.cosine == pytest.approx(0.1)
    assert found.clip_score == pytest.approx(100 * (0.5 + 0 + 0.1) / 3, rel=1e-6)


def test_a_caption_beyond_the_context_scores_as_cut_with_its_end_and_not_as_cut_through_it(
    clip, model, pictures
):
    long = [f"{text}, " + "on a white background, " * 9 for text in CAPTIONS]
    ids = clip.tokenizer(long, verbose=False).input_ids
    length, end = clip.max_length, clip.tokenizer.eos_token_id
    assert all(len(row) > length + 5 for row in ids)
    found = clip_score(clip, pictures, long)
    with_end = plain_cosines(model, pictures, [[*row[: length - 1], end] for row in ids])
    cut_through = plain_cosines(model, pictures, [row[:length] for row in ids])
    torch.testing.assert_close(found.cosine_N, with_end, atol=1e-5, rtol=0)
    assert found.num_cut == len(long)
    whole = clip_score(clip, pictures, CAPTIONS)
    assert found.cosine > cut_through.mean().item() + 0.2
    assert abs(found.cosine - whole.cosine) < whole.cosine - cut_through.mean().item()


def test_a_folder_gives_what_its_pictures_give_and_the_protocol_says_how(clip, pictures, tmp_path):
    for place, picture in enumerate(pictures):
        picture.save(tmp_path / f"{place:04d}.png")
    found, expected = (clip_score(clip, source, CAPTIONS) for source in (tmp_path, pictures))
    assert torch.equal(found.cosine_N, expected.cosine_N)
    assert found.protocol == {
        "clip": "testbed:clip",
        "resize": "shorter side bicubic, centre crop to 64",
        "max_length": 32,
        "caption_language": "en",
    }


def test_pairs_that_cannot_be_scored_are_refused(clip, pictures):
    with pytest.raises(ValueError, match="5 pictures for 6"):
        clip_score(clip, pictures[1:], CAPTIONS)
    with pytest.raises(ValueError, match=r"caption 2 is blank \(1 of 6"):
        clip_score(clip, pictures, [*CAPTIONS[:2], " ", *CAPTIONS[3:]])
    with pytest.raises(ValueError, match="picture 1 is None"):
        clip_score(clip, [pictures[0], None], CAPTIONS[:2])
    with pytest.raises(ValueError, match="no pictures are given"):
        clip_score(clip, [], [])


def test_a_clip_of_nan_is_refused(pictures):
    broken = load_clip("testbed:clip")
    broken.model.visual_projection.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"embedding of picture 0 is not finite \(6 of 6"):
        clip_score(broken, pictures, CAPTIONS)
    broken = load_clip("testbed:clip")
    broken.model.text_projection.weight.zero_()
    with pytest.raises(ValueError, match="embedding of caption 0 is zero"):
        clip_score(broken, pictures, CAPTIONS)


def test_captions_that_clip_reads_alike_are_encoded_once_and_have_equal_rows(clip, monkeypatch):
    encode, encoded = FrozenCLIP.encode_texts, []

    def recording(self, texts):
        encoded.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(FrozenCLIP, "encode_texts", recording)
    long = "a big red star " * 20
    texts = ["x", long + "one", "a small blue ring", "A small BLUE ring", long + "two"]
    embeds = embed_captions(clip, texts, batch_size=2)
    assert len(encoded) == 3
    assert torch.equal(embeds.rows_TP[1], embeds.rows_TP[4])
    assert torch.equal(embeds.rows_TP[2], embeds.rows_TP[3])
    assert embeds.num_cut == 2
    for text, row in zip(texts, embeds.rows_TP, strict=True):
        expected = unit_rows(encode(clip, [text]), "text")[0]
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)
