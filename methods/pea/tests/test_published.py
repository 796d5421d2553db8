"""Published state dicts as adapters; pickles that are more than that are never run."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crosslingual.frozen.base import Base
from crosslingual_worlds.testing.conformance.pipelines import draw
from crosslingual_worlds.testing.fixtures import Command, succeeded
from pea.artifact import load_adapter
from pea.method import build_adapter
from pea.pipeline import attach, load_pipeline
from pea.published import import_published, published_shape
from pea.settings import ImportSettings


@pytest.mark.parametrize(("pooled_width", "width"), [(None, 16), (20, 32)])
def test_published_state_dicts_become_adapters(
    tmp_path: Path, pooled_width: int | None, width: int
) -> None:
    """As the authors save them: half precision, from behind DistributedDataParallel."""
    torch.manual_seed(0)
    shape = {"encoder_width": 12, "hidden_width": 24, "width": width, "pooled_width": pooled_width}
    theirs = build_adapter({"variant": "published", **shape}).half()
    state = {f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save(state, tmp_path / "proj.pth")
    given = {"state_dict": str(tmp_path / "proj.pth"), "output_dir": str(tmp_path / "adapter")}
    given |= {"pretrained_model_name_or_path": "a/base", "text_encoder": "an/encoder"}
    folder = import_published(ImportSettings(**given, languages=["zh"]))
    ours, config = load_adapter(folder)
    assert {name: config[name] for name in shape} == shape
    states = torch.randn(2, 5, 12)
    for found, expected in zip(ours(states), theirs.float()(states), strict=True):
        assert (found is None and expected is None) or torch.equal(found, expected)


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def five_layers(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, None]:
    """What the authors' tests/test_sd_zh.py computes."""
    x = F.layer_norm(x, x.shape[-1:], state["layernorm.weight"], state["layernorm.bias"])
    for number in range(0, 8, 2):
        x = F.gelu(linear(state, f"projector.{number}", x))
    return linear(state, "projector.8", x), None


def fc_layers(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What their LCM and ControlNet tests compute for SDXL."""
    x = F.layer_norm(x, x.shape[-1:], state["layernorm.weight"], state["layernorm.bias"])
    x = linear(state, "fc2", F.gelu(linear(state, "fc1", x)))
    return linear(state, "fc3", F.gelu(x)), x.mean(1)


def flux_layers(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What users of the released FLUX.1 adapters compute."""
    x = F.layer_norm(x, x.shape[-1:], state["layernorm.weight"], state["layernorm.bias"])
    x = F.gelu(linear(state, "projector.0", x))
    x = F.gelu(linear(state, "projector.2", x))
    x = F.gelu(linear(state, "projector.4", x))
    return x, linear(state, "fc", x).mean(1)


LAYERS = {f"projector.{number}": (24, 24) for number in (2, 4, 6)}
FORMS = {
    five_layers: {"projector.0": (24, 12), **LAYERS, "projector.8": (16, 24)},
    fc_layers: {"fc1": (24, 12, "bias"), "fc2": (20, 24, "bias"), "fc3": (32, 20, "bias")},
    flux_layers: {
        "projector.0": (24, 12),
        "projector.2": (24, 24),
        "projector.4": (32, 24),
        "fc": (20, 32, "bias"),
    },
}


def published(form: Callable, **fitted: tuple) -> dict[str, Tensor]:
    """A state dict of a published form with random weights; `fitted` are layers of another shape,
    by their names with `_` for `.`.
    """
    generator = torch.Generator().manual_seed(0)
    state = {
        "layernorm.weight": torch.rand(12, generator=generator),
        "layernorm.bias": torch.ones(12),
    }
    for name, layer in FORMS[form].items():
        rows, columns, *bias = fitted.get(name.replace(".", "_"), layer)
        state[f"{name}.weight"] = torch.randn(rows, columns, generator=generator)
        if bias:
            state[f"{name}.bias"] = torch.randn(rows, generator=generator)
    return state


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_gives_what_its_authors_compute(
    tmp_path: Path, form: Callable
) -> None:
    state = published(form)
    torch.save(state, tmp_path / "proj.bin")
    given = {"state_dict": str(tmp_path / "proj.bin"), "output_dir": str(tmp_path / "adapter")}
    given |= {"pretrained_model_name_or_path": "a/base", "text_encoder": "an/encoder"}
    ours, config = load_adapter(import_published(ImportSettings(**given)))
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(ours(x), form(state, x), strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    defaults = (256, False, 3.5) if form is flux_layers else (77, True, 7.5)
    found = tuple(config[name] for name in ("max_length", "mask_padding", "guidance_scale"))
    assert found == defaults


def test_an_encoder_that_can_be_read_says_how_many_tokens_and_is_of_the_files_width(
    tmp_path: Path, encoder: str
) -> None:
    """The authors' Chinese-CLIP reads 52, and is known before it is converted."""
    torch.save(published(five_layers), tmp_path / "proj.bin")
    chinese = "encoders/OFA-Sys/chinese-clip-vit-huge-patch14"
    wide = {"layernorm.weight": torch.ones(1024), "layernorm.bias": torch.zeros(1024)}
    wide |= {"projector.0.weight": torch.ones(24, 1024)}
    torch.save(published(five_layers) | wide, tmp_path / "wide.bin")
    given = {"output_dir": str(tmp_path / "adapter"), "pretrained_model_name_or_path": "a/base"}
    for file, name, length in (("proj", encoder, 16), ("wide", chinese, 52)):
        file = {"state_dict": str(tmp_path / f"{file}.bin"), "text_encoder": name}
        folder = import_published(ImportSettings(**given, **file))
        assert load_adapter(folder)[1]["max_length"] == length
        folder = import_published(ImportSettings(**given, **file, max_length=9))
        assert load_adapter(folder)[1]["max_length"] == 9
    file = {"state_dict": str(tmp_path / "proj.bin"), "text_encoder": chinese}
    with pytest.raises(ValueError, match="reads states of width 12 .*huge-patch14 gives 1024"):
        import_published(ImportSettings(**given, **file))


ON_BASES = {
    "sd, five layers": ("sd", five_layers, {}),
    "sdxl, fc1 to fc3": ("sdxl", fc_layers, {}),
    "sdxl, fc": ("sdxl", flux_layers, {"projector_4": (20, 24), "fc": (32, 20, "bias")}),
    "flux": ("flux", flux_layers, {"projector_4": (16, 24), "fc": (16, 16, "bias")}),
    "sd3": ("sd3", flux_layers, {"fc": (36, 32, "bias")}),
}


@pytest.mark.parametrize("form", ON_BASES)
def test_a_published_form_is_imported_draws_and_attaches_by_the_commands(
    command: Command, encoder: str, tmp_path: Path, request: pytest.FixtureRequest, form: str
) -> None:
    kind, layers, fitted = ON_BASES[form]
    base = request.getfixturevalue(kind)
    torch.save(published(layers, **fitted), tmp_path / "proj.bin")
    given = {"state_dict": tmp_path / "proj.bin", "output_dir": tmp_path / "adapter"}
    given |= {"pretrained_model_name_or_path": base, "text_encoder": encoder, "max_length": 16}
    answer = succeeded(command("import", **given, languages=["de", "zh"], guidance_scale=5))
    told = "read on SD 3 in FLUX.1's form, .*MultilingualSD3 reads several.*and is not supported"
    assert bool(re.search(told, answer["stderr"][0])) == (kind == "sd3")
    config = load_adapter(tmp_path / "adapter")[1]
    assert (config["languages"], config["guidance_scale"]) == (["de", "zh"], 5.0)
    assert config.get("pooled_from") == ("states" if kind in ("flux", "sd3") else None)
    drawing = {"prompt": ["ein Haus"], "height": 32, "width": 32, "num_inference_steps": 1}
    drawing |= {"adapter": tmp_path / "adapter", "output_dir": tmp_path / "pictures"}
    succeeded(command("generate", **drawing))
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 1
    attached = attach(Base.open(base).load_pipeline(), tmp_path / "adapter")
    ours, theirs = (
        draw(pipe, prompt=["ein Haus"]) for pipe in (attached, load_pipeline(tmp_path / "adapter"))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_base_that_is_multilingual_already_is_refused(tmp_path: Path) -> None:
    given = {"state_dict": str(tmp_path / "proj.bin"), "output_dir": str(tmp_path / "adapter")}
    given |= {"pretrained_model_name_or_path": "Kwai-Kolors/Kolors-diffusers"}
    torch.save(published(five_layers), tmp_path / "proj.bin")
    with pytest.raises(ValueError, match="Kolors-diffusers needs no method for other languages"):
        import_published(ImportSettings(**given, text_encoder="an/encoder"))


def test_the_released_flux_adapter_has_its_size_and_its_meaning() -> None:
    """111.7 MB in bf16; T5's slot is 4096 wide and CLIP's pooled vector 768."""
    with torch.device("meta"):
        widths = {"projector.0": (4096, 4672), "projector.2": (4096, 4096)}
        widths |= {"projector.4": (4096, 4096), "fc": (768, 4096)}
        state = {f"{name}.weight": torch.empty(shape) for name, shape in widths.items()}
        state |= {f"layernorm.{kind}": torch.empty(4672) for kind in ("weight", "bias")}
        state["fc.bias"] = torch.empty(768)
        shape = published_shape(state)
        adapter = build_adapter(shape)
    assert (shape["encoder_width"], shape["width"], shape["pooled_width"]) == (4672, 4096, 768)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 55_846_784


class Evil:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["proj.pth", "proj.bin", "proj.safetensors"])
def test_a_pickle_that_holds_more_than_tensors_is_refused_and_does_not_run(
    tmp_path: Path, name: str
) -> None:
    torch.save({"layernorm.weight": Evil(tmp_path / "ran")}, tmp_path / name)
    given = {"state_dict": str(tmp_path / name), "output_dir": str(tmp_path / "adapter")}
    given |= {"pretrained_model_name_or_path": "a/base", "text_encoder": "an/encoder"}
    with pytest.raises(ValueError, match="is not opened|is a pickle"):
        import_published(ImportSettings(**given))
    assert not (tmp_path / "ran").exists() and not (tmp_path / "adapter").exists()


def test_other_state_dicts_are_refused(tmp_path: Path) -> None:
    given = {"state_dict": str(tmp_path / "proj.pth"), "output_dir": str(tmp_path / "adapter")}
    given |= {"pretrained_model_name_or_path": "a/base", "text_encoder": "an/encoder"}
    with pytest.raises(FileNotFoundError, match="no file"):
        import_published(ImportSettings(**given))
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "proj.pth")
    with pytest.raises(
        ValueError, match="form of 3 linear layers; missing layernorm.bias.*conv.weight"
    ):
        import_published(ImportSettings(**given))
    state = published(flux_layers)
    for changed, message in (
        (
            state | {"fc2.weight": torch.zeros(1)},
            "3 linear layers and fc; missing none; unexpected fc2.weight",
        ),
        ({k: v for k, v in state.items() if k != "fc.bias"}, "missing fc.bias; unexpected none"),
        (state | {"projector.4.weight": torch.zeros(3)}, r"projector.4.weight is \(3,\)"),
        (
            state | {"projector.4.weight": torch.zeros(32, 9)},
            r"projector.4.weight is \(32, 9\), not",
        ),
    ):
        torch.save(changed, tmp_path / "proj.pth")
        with pytest.raises(ValueError, match=message):
            import_published(ImportSettings(**given))
    torch.save({"state_dict": {"step": 3}}, tmp_path / "proj.pth")
    with pytest.raises(ValueError, match="no state dict of tensors"):
        import_published(ImportSettings(**given))
    (tmp_path / "proj.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="is not opened"):
        import_published(ImportSettings(**given))
