"""What embeds: methods, a CLIP, chance."""

import torch

from crosslingual_benchmarks.retrieval.embedders import RandomEmbedder, load_embedder
from crosslingual_benchmarks.retrieval.scoring import embed_texts


def test_methods_that_cannot_embed_are_refused_with_those_that_can(
    register, bench, capsys, shade_encoder
):
    register(shade=None, other=lambda path: shade_encoder(), third=None)
    assert bench() == 2
    assert (
        "shade has no space that texts and pictures share; with one: clip, random, other; "
        "without: shade, third"
    ) in capsys.readouterr().err
    register(other=None)
    assert bench() == 2
    assert "no method 'shade' is installed; installed: other" in capsys.readouterr().err


def test_a_folder_that_holds_no_clip_is_refused(bench, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert bench("--method", "clip", "--path", str(tmp_path / "empty")) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "empty") in err and err.count("\n") == 1


def test_random_rows_depend_on_content_and_seed_alone():
    one, other = RandomEmbedder(seed=0), RandomEmbedder(seed=1)
    rows = one.embed_text(["a", "b", "a"])
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    assert torch.equal(one.embed_text(["b"])[0], rows[1])
    assert not torch.equal(other.embed_text(["a"])[0], rows[0])
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    assert load_embedder("random", None, seed=1) == other


def test_texts_pass_once_each_in_batches_of_like_lengths_and_come_back_in_order():
    seen, random = [], RandomEmbedder(seed=0)

    class Recording:
        def embed_text(self, texts):
            seen.append(texts)
            return random.embed_text(texts)

    texts = ["long words", "a", "longer words yet", "bc", "a"]
    assert torch.equal(embed_texts(Recording(), texts, 2), random.embed_text(texts))
    assert seen == [["a", "bc"], ["long words", "longer words yet"]]
