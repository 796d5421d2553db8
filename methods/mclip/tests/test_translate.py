"""Translation: what was learnt comes back word for word, whatever else stands in the batch."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch

from mclip.__main__ import main
from mclip.stage1.artifact import build_translation, load_translation, save_translation
from mclip.stage1.method import TranslationModel, set_trainable
from mclip.stage1.settings import TrainEncoderSettings
from mclip.stage1.step import nmt_loss
from mclip.stage1.translate import bleu_and_signature, corpus_bleu, translate_texts

SHAPES = {"circle": "Kreis", "ring": "Ring", "star": "Stern", "cross": "Kreuz", "heart": "Herz"}
COLOURS = {"red": "rot", "blue": "blau", "green": "grün"}
SIZES = {"small": "klein", "big": "groß"}
PAIRS = [
    (f"a {size} {shape} in {colour}", f"{SHAPES[shape]}, {SIZES[size]}, {COLOURS[colour]}")
    for size, colour, shape in itertools.product(SIZES, COLOURS, SHAPES)
]
ENGLISH, GERMAN = ([pair[side] for pair in PAIRS] for side in (0, 1))


def teach(model: TranslationModel, tokenizer: Any, num_steps: int) -> None:
    """Step a on the thirty pairs, both ways; the frozen encoder's states are taken once."""
    sides = [tokenizer(texts, padding=True, return_tensors="pt") for texts in (ENGLISH, GERMAN)]
    set_trainable(model, "a")
    with torch.no_grad():
        states = [model.encode(side.input_ids, side.attention_mask) for side in sides]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=2e-3)
    for _ in range(num_steps):
        for source, target, language in ((0, 1, "de"), (1, 0, "en")):
            mask, ids = sides[source].attention_mask, sides[target].input_ids
            decoded = model.decode(states[source], mask, ids[:, :-1], language)
            is_token = sides[target].attention_mask[:, 1:].bool()
            loss, _ = nmt_loss(decoded[is_token], ids[:, 1:][is_token], model.embedding_weight)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def taught() -> tuple[TranslationModel, Any]:
    """A decoder of one layer on the testbed's XLM-R, overfitted on thirty pairs."""
    torch.manual_seed(0)
    shape = {"num_decoder_layers": 1, "decoder_ffn_width": 192, "num_decoder_heads": 4}
    model, tokenizer = build_translation(TrainEncoderSettings(**shape, dropout=0.0), ["en", "de"])
    teach(model, tokenizer, 60)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def folder(taught: tuple[TranslationModel, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_translation(tmp_path_factory.mktemp("run") / "translation", *taught))


def greedy(model: TranslationModel, tokenizer: Any, text: str, language: str) -> str:
    """One token at a time, without a cache, from the decoder's states alone."""
    source = tokenizer([text], return_tensors="pt")
    ids = torch.tensor([[tokenizer.bos_token_id]])
    with torch.no_grad():
        states = model.encode(source.input_ids, source.attention_mask)
        while ids.shape[1] < tokenizer.model_max_length and ids[0, -1] != tokenizer.eos_token_id:
            decoded = model.decode(states, source.attention_mask, ids, language)
            best = (decoded[:, -1] @ model.embedding_weight.T).argmax(dim=-1)
            ids = torch.cat((ids, best[:, None]), dim=1)
    return tokenizer.decode(ids[0], skip_special_tokens=True).strip()


UNSEEN = ["a red star", "small", "ring ring ring", "a big heart in blue left of a green star"]


@pytest.mark.parametrize("num_beams", [1, 4])
def test_overfitted_pairs_come_back_exactly_both_ways(
    taught: tuple[TranslationModel, Any], num_beams: int
) -> None:
    assert translate_texts(*taught, ENGLISH, "de", num_beams=num_beams, batch_size=16) == GERMAN
    assert translate_texts(*taught, GERMAN, "en", num_beams=num_beams) == ENGLISH


def test_one_beam_is_the_plain_greedy_loop(taught: tuple[TranslationModel, Any]) -> None:
    texts = [*ENGLISH[::9], *UNSEEN[:3]]
    expected = [greedy(*taught, text, "de") for text in texts]
    assert len(set(expected)) > len(texts) // 2
    assert translate_texts(*taught, texts, "de", num_beams=1) == expected


@pytest.mark.parametrize("num_beams", [1, 4])
def test_no_sentence_is_translated_otherwise_for_its_batch(
    taught: tuple[TranslationModel, Any], num_beams: int
) -> None:
    """Padding, order and neighbours; an empty sentence stays empty in its place."""
    texts = [UNSEEN[3], "", ENGLISH[0], *UNSEEN[:3], "  "]
    alone = [translate_texts(*taught, [text], "de", num_beams=num_beams)[0] for text in texts]
    assert translate_texts(*taught, texts, "de", num_beams=num_beams) == alone
    assert [alone[1], alone[6]] == ["", ""] and all(alone[2:6])
    turned = translate_texts(*taught, texts[::-1], "de", num_beams=num_beams, batch_size=2)
    assert turned == alone[::-1]


@pytest.mark.parametrize("num_beams", [1, 4])
def test_a_decoder_of_the_text_s_own_tokens_says_the_same_of_them(
    taught: tuple[TranslationModel, Any], tmp_path: Path, num_beams: int
) -> None:
    """And nothing else, after it was written and read."""
    model, tokenizer = taught
    ids = torch.tensor(sum(tokenizer(GERMAN[::2]).input_ids, []))
    model.limit_output(ids)
    save_translation(tmp_path / "translation", model, tokenizer)
    model.limit_output(None)
    limited, _ = load_translation(tmp_path / "translation")
    assert len(limited.output_weight) == len(limited.output_ids) < len(model.output_weight)
    found = translate_texts(limited, tokenizer, ENGLISH, "de", num_beams=num_beams)
    assert found[::2] == GERMAN[::2]
    said = set(sum(tokenizer(found).input_ids, []))
    assert said <= {*ids.tolist(), *range(4)}


def test_the_decoder_is_told_the_language_by_its_map(
    taught: tuple[TranslationModel, Any],
) -> None:
    assert translate_texts(*taught, ENGLISH[:1], "de") != translate_texts(
        *taught, ENGLISH[:1], "en"
    )


def test_translating_leaves_the_model_as_it_was(taught: tuple[TranslationModel, Any]) -> None:
    """Training goes on after a validation: mode, gradients and names are the same."""
    model, tokenizer = taught
    model.train()
    names = [*model.state_dict()]
    translate_texts(model, tokenizer, ENGLISH[:2], "de")
    assert model.training and not model.encoder.training and [*model.state_dict()] == names
    assert all(parameter.requires_grad for parameter in model.decoder.parameters())
    model.eval()


def test_length_is_limited_and_nothing_is_nothing(taught: tuple[TranslationModel, Any]) -> None:
    (short,) = translate_texts(*taught, ENGLISH[:1], "de", max_length=3)
    assert short and GERMAN[0].startswith(short) and short != GERMAN[0]
    assert translate_texts(*taught, [], "de") == []
    assert translate_texts(*taught, ["star " * 100], "de", num_beams=1)[0]  # cut, not refused
    with pytest.raises(ValueError, match="not translate into 'fr', but into de, en"):
        translate_texts(*taught, ENGLISH[:1], "fr")


def test_bleu_is_sacrebleus_and_says_how_it_was_taken() -> None:
    found = ["a red star on a ring", *GERMAN]
    right = ["a red star in a ring", *GERMAN]
    expected = sacrebleu.corpus_bleu(found, [right]).score
    score, signature = bleu_and_signature(found, right)
    assert score == corpus_bleu(found, right) == expected and 90 < score < 100
    assert "tok:13a" in signature and "version:" in signature
    assert "tok:zh" in bleu_and_signature(["一颗红色的星"], ["一颗红色的星"], "zh")[1]
    assert corpus_bleu(["赤い星が一つ"], ["赤い星が一つ"], "ja") == pytest.approx(100)
    with pytest.raises(ValueError, match="1 translations and 2 references"):
        corpus_bleu(["a"], ["a", "b"])


def test_the_verb_writes_translations_and_prints_bleu(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.en").write_text("\n".join([*ENGLISH[:4], "", ENGLISH[4]]) + "\n")
    (tmp_path / "right.de").write_text("\n".join([*GERMAN[:4], "", GERMAN[4]]) + "\n")
    words = ["--model", folder, "--target_language", "de", "--input", str(tmp_path / "in.en")]
    assert main(["translate", *words, "--references", str(tmp_path / "right.de")]) == 0
    printed = capsys.readouterr()
    assert printed.out.split("\n") == [*GERMAN[:4], "", GERMAN[4], ""]
    assert "BLEU 100.00 (nrefs:1" in printed.err
    assert (
        main(["translate", *words, "--output", str(tmp_path / "out.de"), "--num_beams", "1"]) == 0
    )
    assert (tmp_path / "out.de").read_text().split("\n") == [*GERMAN[:4], "", GERMAN[4], ""]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--target_language": "fr"}, "but into de, en"),
        ({"--input": "absent.txt"}, "no file absent.txt"),
        ({"--references": "LINES"}, "has 2 lines"),
        ({"--model": "nowhere"}, "nowhere; export one first"),
    ],
)
def test_users_errors_are_one_line(
    folder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    message: str,
) -> None:
    (tmp_path / "in.en").write_text("a star\na ring\n")
    (tmp_path / "one.de").write_text("ein Stern\n")
    given = {"--model": folder, "--target_language": "de", "--input": str(tmp_path / "in.en")}
    changes = {
        name: value.replace("LINES", str(tmp_path / "one.de")) for name, value in changes.items()
    }
    assert main(["translate", *itertools.chain(*(given | changes).items())]) != 0
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
