"""Published projectors as a model's folder; pickles that are more than tensors are never run."""

import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import XLMRobertaConfig
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaLayer

from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual_worlds.testing.fixtures import Command, succeeded
from mclip.artifact import load_model
from mclip.pipeline import load_embedder
from mclip.published import import_published, write_encoder
from mclip.settings import ImportSettings

LENGTHS = torch.tensor([4, 6, 3])
PADDED = 6
WIDTH, CLIP_WIDTH, FFN_WIDTH, HEADS = 12, 10, 20, 3
FROM_TORCH = {
    "self_attn.out_proj": "self_attn.out_proj",
    "norm1": "self_attn_layer_norm",
    "linear1": "fc1",
    "linear2": "fc2",
    "norm2": "final_layer_norm",
}


def filled(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def torch_adapter() -> tuple[nn.Module, dict[str, Tensor]]:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, FFN_WIDTH, 0.0, "gelu", batch_first=True)
    theirs = filled(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    return theirs, {f"encoder_adapter.{n}": value for n, value in theirs.state_dict().items()}


def in_torchs_names() -> tuple[nn.Module, dict[str, Tensor]]:
    """From behind DistributedDataParallel, with the temperature, in half precision."""
    theirs, state = torch_adapter()
    theirs.half().float()
    state = {f"module.{name}": value.half() for name, value in state.items()}
    return theirs, {**state, "module.logit_scale": torch.tensor(3.0).half()}


def in_fairseqs_names() -> tuple[nn.Module, dict[str, Tensor]]:
    theirs, state = torch_adapter()
    renamed = {}
    for name, value in state.items():
        if "in_proj" in name:
            kind = name.split("in_proj_")[1]
            for part, third in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace(f"in_proj_{kind}", f"{part}_proj.{kind}")] = third
            continue
        for old, new in FROM_TORCH.items():
            name = name.replace(f".{old}.", f".{new}.")
        renamed[f"model.{name}"] = value
    return theirs, renamed


def in_robertas_names() -> tuple[nn.Module, dict[str, Tensor]]:
    """transformers' layers, which take an additive mask."""
    config = XLMRobertaConfig(
        hidden_size=WIDTH,
        intermediate_size=FFN_WIDTH,
        num_attention_heads=HEADS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,  # as XLM-R's own config.json has it; the library's default is 1e-12
    )
    config._attn_implementation = "eager"
    layers = filled(nn.ModuleList(XLMRobertaLayer(config) for _ in range(2)))

    def run(states: Tensor, src_key_padding_mask: Tensor) -> Tensor:
        mask = src_key_padding_mask[:, None, None].float() * -1e9
        for layer in layers:
            found = layer(states, mask)
            states = found[0] if isinstance(found, tuple) else found
        return states

    state = {f"encoder_adapter.layer.{name}": value for name, value in layers.state_dict().items()}
    return run, state


def settings(folder: Path, name: str = "projectors.pt") -> ImportSettings:
    return ImportSettings(
        state_dict=str(folder / name),
        output_dir=str(folder / "model"),
        clip="a/clip",
        text_encoder="an/encoder",
        languages=["en", "de"],
        num_heads=HEADS,
    )


@pytest.mark.parametrize("make", [in_torchs_names, in_fairseqs_names, in_robertas_names])
def test_published_layers_say_the_same_from_our_folder(tmp_path: Path, make: Any) -> None:
    theirs, state = make()
    weight = torch.randn(WIDTH, CLIP_WIDTH, generator=torch.Generator().manual_seed(3))
    prefix = next(iter(state)).split("encoder_adapter")[0]
    torch.save({**state, f"{prefix}dim_proj.weight": weight}, tmp_path / "projectors.pt")
    trikd, config = load_model(import_published(settings(tmp_path)))
    torch.testing.assert_close(trikd.clip_projector.weight, weight)
    has_scale = any(name.endswith("logit_scale") for name in state)
    assert trikd.logit_scale.item() == pytest.approx(3.0 if has_scale else 2.65926)
    assert (config["clip_width"], config["width"]) == (CLIP_WIDTH, WIDTH)
    assert (config["num_layers"], config["ffn_width"]) == (2, FFN_WIDTH)

    states = torch.randn(3, PADDED, WIDTH, generator=torch.Generator().manual_seed(4))
    is_pad = torch.arange(PADDED) >= LENGTHS[:, None]
    with torch.no_grad():
        expected = theirs(states, src_key_padding_mask=is_pad)[torch.arange(3), LENGTHS - 1]
        found = trikd.x_projector(states[~is_pad], LENGTHS)
    close = 5e-3 if has_scale else 1e-5  # the one in half precision was rounded
    torch.testing.assert_close(found, expected, atol=close, rtol=close)


def test_an_encoder_of_another_width_is_refused_at_import(tmp_path: Path) -> None:
    weight = {"dim_proj.weight": torch.ones(WIDTH, CLIP_WIDTH)}
    torch.save({**torch_adapter()[1], **weight}, tmp_path / "projectors.pt")
    given = replace(settings(tmp_path), text_encoder="FacebookAI/xlm-roberta-large")
    with pytest.raises(ValueError, match="reads states of width 12 and .*-large gives 1024"):
        import_published(given)


NAMES = {"self_attn.out_proj": "self_attn.out_proj", **FROM_TORCH}


def as_fairseq(layer: nn.Module) -> dict[str, Tensor]:
    """A layer's tensors by fairseq's names."""
    state = {}
    for name, value in layer.state_dict().items():
        part, _, kind = name.rpartition(".")
        if "in_proj" in kind:
            for third, own in zip("qkv", value.chunk(3), strict=True):
                state[f"self_attn.{third}_proj.{kind.removeprefix('in_proj_')}"] = own
        else:
            state[f"{NAMES[part]}.{kind}"] = value
    return state


class Xlmr(nn.Module):
    """XLM-R as fairseq computes it, of torch's layers."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(num_tokens, WIDTH), nn.Embedding(30, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True}
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, FFN_WIDTH, **options) for _ in range(2)
        )

    def forward(self, ids: Tensor) -> Tensor:
        is_pad = ids == 1
        places = torch.where(is_pad, 1, (~is_pad).cumsum(1) + 1)
        states = self.norm(self.tokens(ids) + self.positions(places))
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=is_pad)
        return states

    def published(self) -> dict[str, Tensor]:
        state = {
            "embed_tokens.weight": self.tokens.weight,
            "embed_positions.weight": self.positions.weight,
        }
        state |= {f"layernorm_embedding.{n}": t for n, t in self.norm.state_dict().items()}
        for number, layer in enumerate(self.layers):
            state |= {f"layers.{number}.{n}": t for n, t in as_fairseq(layer).items()}
        state = {f"encoder.sentence_encoder.{name}": tensor for name, tensor in state.items()}
        return {
            **state,
            "encoder.lm_head.bias": torch.zeros(3),
            "encoder.sentence_encoder.version": torch.ones(1),
        }


def write_checkpoints(folder: Path, xlmr: Xlmr, is_new: bool) -> tuple[nn.Module, Tensor]:
    """Writes the authors' trainer's file and their enhanced XLM-R's; returns the projectors."""
    theirs = torch_adapter()[0]
    weight = torch.randn(WIDTH, CLIP_WIDTH, generator=torch.Generator().manual_seed(3))
    layers = {}
    for number, layer in enumerate(theirs.layers):
        layers |= {
            f"encoder.{'x_projector' if is_new else 'encoder_adapter'}.{number}.{n}": t
            for n, t in as_fairseq(layer).items()
        }
    model = {f"encoder.{'c_projector' if is_new else 'dim_proj'}.weight": weight, **layers}
    model |= {"encoder.version": torch.ones(1), "encoder.clip.visual.proj": torch.zeros(2)}
    model |= {f"encoder.xlmr.model.{name}": tensor for name, tensor in xlmr.published().items()}
    arguments = Namespace(
        encoder_attention_heads=HEADS, activation_fn="gelu", arch="multimodal_encoder_base"
    )
    whole = {
        "args": arguments,
        "model": model,
        "criterion": {"it_logit_scale": torch.tensor([3.0])},
    }
    torch.save({**whole, "extra_state": {"epoch": 15}}, folder / "checkpoint_best.pt")
    torch.save({"model": xlmr.published(), "args": arguments}, folder / "mte_mclip.pt")
    return theirs, weight


@pytest.mark.parametrize("has_own_file", [True, False])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_whole_checkpoint_embeds_as_the_authors_code(
    tmp_path: Path, clip: str, encoder: str, has_own_file: bool, is_new: bool, capsys: Any
) -> None:
    """The authors' trainer's file, and their enhanced XLM-R: in a file of its own, or in it."""
    tokenizer = load_multilingual_encoder(encoder).tokenizer
    xlmr = filled(Xlmr(len(tokenizer)))
    theirs, weight = write_checkpoints(tmp_path, xlmr, is_new)
    changes = {"clip": clip, "tokenizer": encoder, "num_heads": None}
    changes["text_encoder"] = str(
        tmp_path / ("mte_mclip.pt" if has_own_file else "checkpoint_best.pt")
    )
    given = replace(settings(tmp_path, "checkpoint_best.pt"), **changes, max_length=20)
    folder = import_published(given)
    said = capsys.readouterr().err
    assert "encoder.xlmr (" in said and "encoder.clip (1)" in said and "lm_head (1)" in said

    embedder = load_embedder(str(folder))
    assert embedder.projectors.logit_scale.item() == pytest.approx(3.0)
    texts = ["a red house", "ein Haus", "m"]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = theirs(xlmr(tokens.input_ids), src_key_padding_mask=tokens.input_ids == 1)
        expected = states[torch.arange(3), tokens.attention_mask.sum(1) - 1]
        picture = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(embedder.encode_texts(texts), expected, atol=1e-5, rtol=1e-5)
        ours = embedder.encode_images(picture)
        torch.testing.assert_close(ours, embedder.clip.encode_images(picture) @ weight.T)


@pytest.mark.parametrize("form", ["projectors", "mte_mclip", "checkpoint_best"])
def test_a_published_form_is_imported_and_embeds_by_the_commands(
    command: Command, clip: str, encoder: str, tmp_path: Path, form: str
) -> None:
    """The projectors alone; or the whole checkpoint, with XLM-R in a file of its own or in it."""
    given = {"output_dir": tmp_path / "model", "clip": clip, "max_length": 16}
    if form == "projectors":
        weight = {"dim_proj.weight": torch.ones(WIDTH, CLIP_WIDTH)}
        torch.save({**torch_adapter()[1], **weight}, tmp_path / "projectors.pt")
        given |= {"state_dict": tmp_path / "projectors.pt", "text_encoder": encoder}
        given["num_heads"] = HEADS
    else:
        tokenizer = load_multilingual_encoder(encoder).tokenizer
        write_checkpoints(tmp_path, filled(Xlmr(len(tokenizer))), is_new=False)
        given |= {"state_dict": tmp_path / "checkpoint_best.pt", "tokenizer": encoder}
        given["text_encoder"] = tmp_path / f"{form}.pt"
    answer = succeeded(command("import", **given, languages=["en", "de"]))
    assert ("encoder.clip (1)" in answer["stderr"][0]) == (form != "projectors")
    config = load_model(tmp_path / "model")[1]
    assert (config["languages"], config["num_heads"]) == (["en", "de"], HEADS)
    (tmp_path / "texts.txt").write_text("a house\nein Haus\n")
    embedding = {"texts": tmp_path / "texts.txt", "output": tmp_path / "texts"}
    succeeded(command("embed", model=tmp_path / "model", **embedding))
    rows = np.load(tmp_path / "texts.npy")
    expected = load_embedder(str(tmp_path / "model")).embed_text(["a house", "ein Haus"])
    np.testing.assert_allclose(rows, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"odd.weight": torch.zeros(1)}, "is not fairseq's XLM-R; unexpected: odd.weight"),
        ({"encoder.sentence_encoder.layers.0.odd.weight": torch.zeros(1)}, "layers.0.odd.weight"),
        (
            {
                "encoder.sentence_encoder.layers.1.fc1.weight": torch.zeros(3, 3),
                "odd": torch.ones(1),
            },
            "unexpected: odd; of another shape: encoder.layer.1.intermediate.dense.weight is",
        ),
        (
            {"encoder.sentence_encoder.embed_tokens.weight": None, "odd": torch.ones(1)},
            "missing: embeddings.word_embeddings.weight; unexpected: odd",
        ),
        (
            {"encoder.sentence_encoder.layers.1.fc1.bias": None, "odd": torch.ones(1)},
            "missing: encoder.layer.1.intermediate.dense.bias; unexpected: odd",
        ),
    ],
)
def test_what_is_no_xlmr_of_fairseq_is_refused(
    tmp_path: Path, encoder: str, changes: dict[str, Tensor | None], message: str
) -> None:
    tokenizer = load_multilingual_encoder(encoder).tokenizer
    state = filled(Xlmr(len(tokenizer))).published() | changes
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    arguments = Namespace(encoder_attention_heads=HEADS)
    torch.save({"model": state, "args": arguments}, tmp_path / "mte_mclip.pt")
    with pytest.raises(ValueError, match=message):
        write_encoder(str(tmp_path / "mte_mclip.pt"), str(tmp_path / "encoder"), encoder)


def test_projectors_of_other_layers_are_refused(tmp_path: Path) -> None:
    whole = {"args": Namespace(activation_fn="relu"), "model": in_fairseqs_names()[1]}
    whole["model"]["dim_proj.weight"] = torch.zeros(WIDTH, CLIP_WIDTH)
    torch.save(whole, tmp_path / "projectors.pt")
    with pytest.raises(
        ValueError, match="trained with activation_fn relu, and mCLIP's layers have"
    ):
        import_published(settings(tmp_path))


class Evil:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["projectors.pt", "projectors.bin", "projectors.safetensors"])
def test_a_pickle_that_holds_more_than_tensors_is_refused_and_does_not_run(
    tmp_path: Path, name: str
) -> None:
    torch.save({"dim_proj.weight": Evil(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(ValueError, match="is not opened|is a pickle"):
        import_published(settings(tmp_path, name))
    assert not (tmp_path / "ran").exists() and not (tmp_path / "model").exists()


def change(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """A published state dict that lacks something, or has something more."""
    first = "encoder_adapter.layers.0."
    if kind == "frozen":
        return {**state, "visual.conv1.weight": torch.zeros(1)}
    if kind == "cut":
        return {name: value for name, value in state.items() if not name.endswith("norm2.bias")}
    if kind == "no projector":
        return {name: value for name, value in state.items() if name.startswith("encoder")}
    if kind == "no adapter":
        return {"dim_proj.weight": state["dim_proj.weight"]}
    if kind == "several":
        state = {**state, f"{first}linear1.weight": torch.zeros(9, WIDTH)}
        state = {name: value for name, value in state.items() if not name.endswith("norm2.bias")}
        return {**state, "visual.conv1.weight": torch.zeros(1)}
    if kind == "twice":
        return {**state, f"{first}fc1.weight": state[f"{first}linear1.weight"]}
    return {**state, f"{first}linear1.weight": torch.zeros(3, 3)}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("frozen", "not the published projectors; unexpected: visual.conv1.weight; clip_projector"),
        ("cut", "projectors; missing: x_projector.layers.0.ffn_norm.bias, x_projector.layers.1"),
        ("no projector", "projectors; missing: clip_projector.weight; clip_projector is dim_proj"),
        ("no adapter", "missing: x_projector.layers.0.*, .* and 11 more; clip_projector"),
        ("twice", r"unexpected: encoder_adapter.layers.0.fc1.weight \(twice\); clip_projector"),
        ("shape", "of another shape: .*down.weight|of another shape: .*up.weight"),
        (
            "several",
            "missing: x_projector.layers.0.ffn_norm.bias, .*; unexpected: visual.conv1.weight; of "
            r"another shape: .*layers.0.down.weight is \(12, 20\), not \(12, 9\)",
        ),
    ],
)
def test_every_tensor_is_used_or_named(tmp_path: Path, kind: str, message: str) -> None:
    state = {"dim_proj.weight": torch.zeros(WIDTH, CLIP_WIDTH), **torch_adapter()[1]}
    torch.save(change(state, kind), tmp_path / "projectors.pt")
    with pytest.raises(ValueError, match=message):
        import_published(settings(tmp_path))
    assert not (tmp_path / "model").exists()


def test_files_that_are_no_state_dict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        import_published(settings(tmp_path))
    torch.save({"state_dict": {"step": 3}}, tmp_path / "projectors.pt")
    with pytest.raises(ValueError, match="no state dict of tensors"):
        import_published(settings(tmp_path))
    (tmp_path / "projectors.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="is not opened"):
        import_published(settings(tmp_path))
