"""Published state dicts as adapters; pickles that are more than that are never run."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mulan.artifact import load_adapter, start_adapter
from mulan.method import build_adapter
from mulan.pipeline import attach
from mulan.published import import_published
from mulan.settings import ImportSettings, TrainSettings

SD = {"variant": "published", "family": "sd", "encoder_width": 12, "width": 16, "num_queries": 9}
SD |= {"num_heads": 8, "pooled_width": None, "split_widths": None, "add_embedding": None}
SDXL = {**SD, "family": "sdxl", "width": 40, "split_widths": [24, 16], "pooled_width": 20}
SDXL |= {"pool": "encoder", "pool_input_width": 10}
KINDS = {
    "sd15": SD,
    "sd21": {**SD, "width": 24},
    "sdxl": SDXL,
    "sdxl-mean": {**SDXL, "pool": "mean", "pool_input_width": 12},
    "sdxl-states": {**SDXL, "pool": "states", "pool_input_width": 40},
    "sdxl-embedding": {**SDXL, "add_embedding": [44, 32]},
    "pixart": {**SD, "family": "pixart", "replaces_projection": True, "num_queries": 0},
}


def given(tmp_path: Path, name: str = "adapter.pth", **changes: Any) -> ImportSettings:
    places = {"state_dict": str(tmp_path / name), "output_dir": str(tmp_path / "adapter")}
    places |= {"pretrained_model_name_or_path": "a/base", "text_encoder": "an/encoder"}
    return ImportSettings(**{**places, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_published_state_dicts_become_adapters(tmp_path: Path, kind: str) -> None:
    """As a trainer saves them: half precision, from behind DistributedDataParallel."""
    torch.manual_seed(0)
    shape = KINDS[kind]
    theirs = build_adapter(shape).half()
    prefix = "module.caption_projection." if kind == "pixart" else "module."
    state = {f"{prefix}{name}": tensor for name, tensor in theirs.state_dict().items()}
    torch.save(state, tmp_path / "adapter.pth")
    policy = {}
    if shape["family"] == "sdxl":
        policy = {"null_policy": "zeros", "pooled_policy": "adapter"}
    ours, config = load_adapter(import_published(given(tmp_path, **policy)))
    found = {name: config[name] for name in shape if name != "add_embedding"}
    assert found == {name: shape[name] for name in found}
    assert config["null_policy"] == policy.get("null_policy", "adapter")
    states = (torch.randn(2, 5, 12), torch.randn(2, 10))
    states = states if shape.get("pool") == "encoder" else states[:1]
    for own, expected in zip(ours(*states), theirs.float()(*states), strict=True):
        if expected is None:
            assert own is None
        else:
            torch.testing.assert_close(own, expected)
    if kind == "sdxl-embedding":
        sample = torch.randn(2, 44)
        assert torch.equal(ours.add_embedding(sample), theirs.add_embedding(sample))


def test_training_does_not_start_from_an_adapter_that_reads_prompts_after_a_prefix(
    tmp_path: Path,
) -> None:
    torch.save(build_adapter(SD).state_dict(), tmp_path / "adapter.pth")
    settings = TrainSettings(init_adapter=str(import_published(given(tmp_path))))
    with pytest.raises(ValueError, match="after the words 'summarize:'.*--prompt_prefix ''"):
        start_adapter(settings, SD)


def test_sdxl_files_must_say_their_null_policy_and_others_have_one(tmp_path: Path) -> None:
    torch.save(build_adapter(SDXL).state_dict(), tmp_path / "adapter.pth")
    with pytest.raises(ValueError, match="say --null_policy zeros or --null_policy adapter"):
        import_published(given(tmp_path))
    torch.save(build_adapter(SD).state_dict(), tmp_path / "adapter.pth")
    with pytest.raises(ValueError, match="null_policy zeros is SDXL's"):
        import_published(given(tmp_path, null_policy="zeros"))


def test_an_adapter_for_another_encoders_pooled_vector_is_not_attached(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    torch.save(build_adapter(SDXL).state_dict(), tmp_path / "adapter.pth")
    folder = import_published(given(tmp_path, null_policy="adapter", pooled_policy="adapter"))
    empty = dict.fromkeys(("vae", "unet", "scheduler", "text_encoder", "text_encoder_2"))
    pipe = StableDiffusionXLPipeline(**empty, tokenizer=None, tokenizer_2=None)
    with pytest.raises(ValueError, match="the pooled vector of the encoder that it was published"):
        attach(pipe, folder)


class Evil:
    """A pickle that makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["adapter.pth", "adapter.bin", "adapter.safetensors"])
def test_a_pickle_that_holds_more_than_tensors_is_refused_and_does_not_run(
    tmp_path: Path, name: str
) -> None:
    torch.save({"queries": Evil(tmp_path / "ran")}, tmp_path / name)
    with pytest.raises(ValueError, match="is not opened|is a pickle"):
        import_published(given(tmp_path, name))
    assert not (tmp_path / "ran").exists() and not (tmp_path / "adapter").exists()


def test_other_state_dicts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        import_published(given(tmp_path))
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "adapter.pth")
    with pytest.raises(ValueError, match="form for SD; missing: .*; unexpected: conv.weight$"):
        import_published(given(tmp_path))


WHOLE = "transformer_blocks.0.norm.weight"


@pytest.mark.parametrize(
    ("kind", "left_out", "added", "message"),
    [
        ("sd15", None, {"odd": (1,)}, "SD; unexpected: odd"),
        ("sd15", "queries", {}, "SD; missing: queries"),
        ("sd15", "proj.0.weight", {}, "SD; missing: proj.0.weight"),
        ("sd15", "transformer.d", {}, "SD; missing: transformer.decoder.layers.*more"),
        ("sd15", None, {"queries": (1, 9, 13)}, r"SD; of another shape: queries is \(1, 9, 13\).*"),
        ("sdxl", "adapter1.queries", {}, "SDXL; missing: adapter1.queries"),
        ("sdxl", "pool_caption_projection.linear_1.weight", {}, "SDXL; missing: pool.*1.weight"),
        ("sdxl-embedding", "add_embedding.linear_1.weight", {}, "SDXL; missing: add_.*_1.weight"),
        ("sdxl-states", "pool_caption_projection.positional_embedding", {}, "pool; missing: .*ing"),
        ("pixart", "linear_1.weight", {}, "PixArt; missing: linear_1.weight"),
        ("pixart", "linear_2.bias", {}, "PixArt; missing: linear_2.bias"),
        ("pixart", None, {"odd": (1,)}, "PixArt; unexpected: odd"),
        ("pixart", "linear_2.bias", {"odd": (1,)}, "missing: linear_2.bias; unexpected: odd"),
        (
            "pixart",
            None,
            {"linear_2.weight": (16, 3)},
            r"PixArt; of another shape: linear_2.weight is \(16, 3\), not \(16, 16\)",
        ),
        (
            "pixart",
            None,
            {WHOLE: (1,)},
            f"PixArt; unexpected: {WHOLE}; .* its transformer's folder",
        ),
    ],
)
def test_what_differs_from_the_nearest_form_is_named(
    tmp_path: Path, kind: str, left_out: str | None, added: dict, message: str
) -> None:
    state = build_adapter(KINDS[kind]).state_dict()
    if left_out:
        state = {name: value for name, value in state.items() if not name.startswith(left_out)}
    state |= {name: torch.zeros(shape) for name, shape in added.items()}
    torch.save(state, tmp_path / "adapter.pth")
    with pytest.raises(ValueError, match=f"is not a published MuLan: nearest .*{message}$"):
        import_published(given(tmp_path, null_policy="adapter"))
    assert not (tmp_path / "adapter").exists()


def test_a_base_that_is_multilingual_already_is_refused(tmp_path: Path) -> None:
    kolors = "Kwai-Kolors/Kolors-diffusers"
    with pytest.raises(ValueError, match="Kolors-diffusers needs no method for other languages"):
        import_published(given(tmp_path, pretrained_model_name_or_path=kolors))


def test_a_pixart_adapter_of_an_earlier_version_is_built_as_it_was() -> None:
    """Its config names the family alone."""
    now = KINDS["pixart"]
    before = {name: value for name, value in now.items() if name != "replaces_projection"}
    assert type(build_adapter(before)) is type(build_adapter(now))
