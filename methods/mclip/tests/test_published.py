"""Published projectors as a model's folder; pickles that are more than tensors are never run."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import XLMRobertaConfig
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaLayer

from mclip.artifact import import_published, load_model
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
    if kind == "twice":
        return {**state, f"{first}fc1.weight": state[f"{first}linear1.weight"]}
    return {**state, f"{first}linear1.weight": torch.zeros(3, 3)}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("frozen", "not the published projectors: visual.conv1.weight; keep only dim_proj"),
        ("cut", r"missing: x_projector.layers.0.ffn_norm.bias, x_projector.layers.1"),
        ("no projector", "no dim_proj.weight"),
        ("no adapter", "no encoder_adapter, layer 0"),
        ("twice", "not the published projectors: encoder_adapter.layers.0.fc1.weight"),
        ("shape", "of another shape: .*down.weight|of another shape: .*up.weight"),
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
