"""The student as transformers has it: how it starts, what is loaded, and what padding may cost."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AltCLIPModel, AltCLIPTextModel, XLMRobertaModel

from altdiffusion.text.artifact import load_altclip, save_altclip
from altdiffusion.text.encoder import (
    build_student,
    load_text_encoder,
    save_text_encoder,
    unpack,
)
from altdiffusion.text.pipeline import load_embedder
from crosslingual.cli.main import main
from crosslingual.frozen.clip import load_clip

TEXTS = ["house 3", "ein Haus", "", "une maison"]


def test_a_student_starts_from_the_encoder_with_a_new_projection_and_no_dropout(
    encoder: str,
) -> None:
    student = build_student(encoder, 16)
    body = XLMRobertaModel.from_pretrained(encoder, add_pooling_layer=False)
    ids, mask = student.tokenize(TEXTS)
    assert student.model.training, "built to be trained"
    states = student.model.roberta(ids, attention_mask=mask).last_hidden_state
    expected = body.eval()(ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(states, expected)
    config = student.model.config
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.0
    vector = student.model(ids, attention_mask=mask).pooler_output
    weights = student.model.transformation.weight, student.model.transformation.bias
    plain = torch.nn.functional.linear(student.model.pre_LN(states[:, 0]), *weights)
    torch.testing.assert_close(vector, plain)
    assert all(parameter.requires_grad for parameter in student.model.parameters())


def test_one_padding_state_stands_for_all_of_them(student: str) -> None:
    """Equal to the pass over all 16 positions that stock diffusers makes."""
    encoder = load_text_encoder(student)
    tokens = encoder.tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        full = encoder.model(**tokens).last_hidden_state
    packed = encoder.encode_packed(TEXTS)
    lengths = tokens.attention_mask.sum(dim=1)
    assert packed.lengths.tolist() == [min(n + 1, 16) for n in lengths.tolist()]
    torch.testing.assert_close(unpack(packed, 16), full, rtol=1e-4, atol=1e-5)
    assert len({len(row) for row in packed.rows()}) > 1, "rows of several lengths"


def test_a_sentence_that_fills_all_tokens_is_cut_with_its_end_kept_and_has_no_padding(
    student: str,
) -> None:
    encoder = load_text_encoder(student)
    packed = encoder.encode_packed(["a" * 40, "b"])
    assert packed.lengths.tolist()[0] == 16
    ids, _ = encoder.tokenize(["a" * 40])
    assert ids.shape == (1, 16) and ids[0, -1] == encoder.tokenizer.eos_token_id
    tokens = encoder.tokenizer(
        ["a" * 40, "b"], padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        full = encoder.model(**tokens).last_hidden_state
    torch.testing.assert_close(unpack(packed, 16), full, rtol=1e-4, atol=1e-5)


def test_what_is_saved_is_loaded_and_tells_diffusers_of_mask_and_length(
    encoder: str, tmp_path: Path
) -> None:
    student = build_student(encoder, 16, max_length=9)
    save_text_encoder(student, tmp_path)
    again = load_text_encoder(str(tmp_path))
    assert again.max_length == again.tokenizer.model_max_length == 9
    assert json.loads((tmp_path / "config.json").read_text())["use_attention_mask"] is True
    assert again.model.config.use_attention_mask is True
    for name, tensor in student.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor)
    assert not any(parameter.requires_grad for parameter in again.model.parameters())


def with_old_names(student: str, folder: Path) -> Path:
    """The student's folder as older files name its layers."""
    shutil.copytree(student, folder)
    state = load_file(folder / "model.safetensors")
    old = {name.replace("encoder.layers.", "encoder.layer."): t for name, t in state.items()}
    assert old.keys() != state.keys()
    old["roberta.embeddings.position_ids"] = torch.arange(18)[None]  # a buffer of old files
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_older_names_of_layers_are_read_where_transformers_would_fill_in_random_weights(
    student: str, tmp_path: Path
) -> None:
    folder = with_old_names(student, tmp_path / "old")
    stock, told = AltCLIPTextModel.from_pretrained(folder, output_loading_info=True)
    assert any("encoder.layers.0" in name for name in told["missing_keys"])
    ours, new = load_text_encoder(str(folder)).model, load_text_encoder(student).model
    for name, tensor in new.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    query = "roberta.encoder.layers.0.attention.self.query.weight"
    assert not torch.equal(stock.state_dict()[query], new.state_dict()[query])


def test_the_text_half_of_a_whole_altclip_is_read_under_its_names(
    student: str, teacher: str, tmp_path: Path
) -> None:
    save_altclip(tmp_path / "altclip", load_text_encoder(student), load_clip(teacher))
    names = load_file(tmp_path / "altclip" / "model.safetensors")
    assert "text_model.roberta.encoder.layer.0.attention.self.query.weight" in names
    ours, new = load_text_encoder(str(tmp_path / "altclip")), load_text_encoder(student)
    assert ours.max_length == new.max_length == 16
    for name, tensor in new.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor)


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_weights_that_do_not_fit_are_an_error_and_never_random(
    student: str, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "student"
    shutil.copytree(student, folder)
    state = load_file(folder / "model.safetensors")
    name = "roberta.encoder.layers.1.output.dense.weight"
    tensor = state.pop(name)
    if fault == "unexpected":
        state |= {name: tensor, "roberta.encoder.layers.2.output.dense.weight": tensor.clone()}
    elif fault == "shape":
        state[name] = tensor[:, 1:].contiguous()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{fault}: .*dense.weight.* would be random"):
        load_text_encoder(str(folder))


def test_what_is_no_student_is_refused(encoder: str, teacher: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="is a xlm-roberta, not a trained AltCLIP text encoder: run"
    ):
        load_text_encoder(encoder)
    with pytest.raises(ValueError, match="a student starts from XLM-R, and .* is a clip"):
        build_student(teacher, 16)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_text_encoder(str(tmp_path / "nowhere"))


def test_a_trained_student_can_go_on_but_not_after_a_teacher_of_another_width(
    student: str,
) -> None:
    again = build_student(student, 16)
    assert all(parameter.requires_grad for parameter in again.model.parameters())
    with pytest.raises(ValueError, match="gives vectors of width 16, the teacher 20"):
        build_student(student, 20)


def test_a_pickle_is_not_opened(student: str, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    shutil.copytree(student, folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="take it out once by"):
        load_text_encoder(str(folder))
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    with pytest.raises(ValueError, match="is a pickle"):
        load_text_encoder(str(folder))


@pytest.mark.parametrize("is_whole", [False, True])
def test_pickles_are_converted_by_the_command_that_the_error_names(
    student: str, teacher: str, tmp_path: Path, is_whole: bool
) -> None:
    """As AltCLIPs are on the hub."""
    encoder, folder = load_text_encoder(student), tmp_path / "pickled"
    if is_whole:
        save_altclip(folder, encoder, load_clip(teacher))
    else:
        save_text_encoder(encoder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="out once by `crosslingual encoder convert") as raised:
        build_student(str(folder), 16)
    words = shlex.split(str(raised.value).split("`")[1])
    assert words[:3] == ["crosslingual", "encoder", "convert"] and words[4] == str(folder)
    assert main([*words[1:-1], str(tmp_path / "converted")]) == 0
    found = load_text_encoder(str(tmp_path / "converted")).model.state_dict()
    assert all(torch.equal(found[name], t) for name, t in encoder.model.state_dict().items())


def test_altclip_keeps_clips_pictures_and_puts_the_student_before_clips_text_projection(
    student: str, teacher: str, tmp_path: Path
) -> None:
    clip, encoder = load_clip(teacher), load_text_encoder(student)
    save_altclip(tmp_path / "altclip", encoder, clip)
    model = load_altclip(str(tmp_path / "altclip"))
    assert isinstance(model.model, AltCLIPModel)
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(model.encode_images(pictures), clip.encode_images(pictures))
    ids, mask = encoder.tokenize(TEXTS)
    with torch.no_grad():
        vectors = encoder.model(ids, attention_mask=mask).pooler_output
        expected = clip.model.text_projection(vectors)
    torch.testing.assert_close(model.encode_texts(TEXTS), expected)
    embedder = load_embedder(str(tmp_path / "altclip"))
    rows = embedder.embed_text(TEXTS)
    torch.testing.assert_close(rows, torch.nn.functional.normalize(expected, dim=1))
    stock = AltCLIPModel.from_pretrained(tmp_path / "altclip")
    features = stock.get_text_features(ids, attention_mask=mask).pooler_output
    torch.testing.assert_close(features.detach(), expected)
