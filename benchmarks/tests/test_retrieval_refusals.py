"""What `crosslingual-bench retrieval` refuses, or takes only where told to and then records."""

import pytest
import torch

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards
from crosslingual_benchmarks.__main__ import main


def test_a_missing_picture_is_an_error_unless_allowed_and_then_recorded(
    register, root, bench, capsys, shade_encoder, results
):
    register(shade=lambda path: shade_encoder())
    (root / "images" / "p3.jpg").unlink()
    assert bench() == 2
    assert "1 of 12 pictures of xm3600 are missing, the first " in (err := capsys.readouterr().err)
    assert "p3.jpg; add them, or leave them out with --allow_missing true" in err
    assert not (root / "out").exists()
    assert bench("--allow_missing", "true") == 0
    for result in results(root):
        assert (result["n_missing_images"], result["n_images"]) == (1, 11)
        assert result["protocol"]["gallery"] == 11
        assert result["mean_recall"] == 1  # the others kept their own captions
    assert "en: 1 pictures are missing or broken and left out" in capsys.readouterr().out


def test_a_broken_picture_is_an_error_unless_allowed_and_then_recorded(
    register, root, bench, capsys, shade_encoder, results, png
):
    register(shade=lambda path: shade_encoder())
    (root / "images" / "p3.jpg").write_bytes(png(3)[:40])
    assert bench() == 2
    assert "picture p3 is broken" in capsys.readouterr().err
    assert bench("--allow_missing", "true") == 0
    assert [(r["n_missing_images"], r["mean_recall"]) for r in results(root)] == [(1, 1)] * 2


def test_pictures_that_are_all_missing_or_broken_are_refused_even_where_some_may_be(
    register, root, bench, capsys, shade_encoder
):
    register(shade=lambda path: shade_encoder())
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    assert bench("--allow_missing", "true") == 2
    assert "none of 12 pictures can be decoded" in capsys.readouterr().err
    for path in (root / "images").iterdir():
        path.unlink()
    assert bench("--allow_missing", "true") == 2
    assert "12 of 12 pictures of xm3600 are missing" in capsys.readouterr().err


def test_a_picture_without_a_caption_is_an_error_unless_allowed_and_then_recorded(
    register, root, bench, capsys, shade_encoder, results, rewrite
):
    register(shade=lambda path: shade_encoder())
    rewrite(root, 7, de=[])
    assert bench() == 2
    assert "picture p7 of xm3600 has no caption in 'de' (1 of 12" in capsys.readouterr().err
    assert bench("--allow_missing", "true") == 0
    german, english = results(root)
    assert (german["n_untold_images"], german["n_images"]) == (1, 11)
    assert (english["n_untold_images"], english["n_images"]) == (0, 12)


def test_a_language_without_captions_is_an_error_that_names_those_found(
    register, root, bench, capsys, shade_encoder, rewrite
):
    register(shade=lambda path: shade_encoder())
    assert bench("--languages", "en", "ja") == 2
    assert "has no captions in 'ja'; it has de, en" in capsys.readouterr().err
    for number in range(12):
        rewrite(root, number, th=[])
    assert bench("--languages", "en", "th", "--allow_missing", "true") == 2
    err = capsys.readouterr().err
    assert "no picture with a caption in 'th'" in err and "has captions in en" in err


@pytest.mark.parametrize(
    ("number", "name"), [(3, "picture p3"), (107, "text 'der Text 107'")], ids=["picture", "text"]
)
def test_an_embedding_that_is_not_finite_is_an_error_with_its_name_and_no_result(
    register, root, bench, capsys, number, name, shade_encoder, rewrite
):
    register(shade=lambda path: shade_encoder(broken=[number]))
    rewrite(root, 7, de=["der Text 107"])
    assert bench() == 2
    assert f"the embedding of {name} is not finite" in capsys.readouterr().err
    assert not (root / "out").exists()


def test_an_embedding_that_is_zero_or_of_another_shape_is_an_error(
    register, bench, capsys, shade_encoder
):
    encoder = shade_encoder()
    register(shade=lambda path: encoder)
    encoder.embed_image = lambda pictures: torch.zeros(len(pictures), 256)
    assert bench() == 2
    assert "the embedding of picture p0 is zero" in capsys.readouterr().err
    encoder.embed_image = lambda pictures: torch.ones(256)
    assert bench() == 2
    assert "an embedder made (256,) of 12 inputs, not rows" in capsys.readouterr().err
    encoder.embed_image = lambda pictures: torch.ones(len(pictures), 7)
    assert bench() == 2
    assert "one space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "xm360"], "no dataset 'xm360'; did you mean 'xm3600'?"),
        (["--task", "2"], "dataset xm3600 takes no --task"),
        (["--method", "clip", "--path", "null"], "give --path: a CLIP's hub id"),
    ],
)
def test_wrong_settings_are_one_line(register, bench, capsys, words, message, shade_encoder):
    register(shade=lambda path: shade_encoder())
    assert bench(*words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_shards_without_pictures_are_refused(tmp_path, capsys):
    write_shards([Record("a", None, {"en": ["a"]}, True)], tmp_path / "shards")
    words = ["--method", "random", "--dataset", "shards", "--root", str(tmp_path / "shards")]
    assert main(["retrieval", *words, "--output_dir", str(tmp_path / "out")]) == 2
    assert "1 of 1 pictures of" in (err := capsys.readouterr().err)
    assert "the first a; write the data again with them" in err
