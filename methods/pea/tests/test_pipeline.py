"""An exported adapter in pipelines of all kinds on its base."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pea
from crosslingual.adapter.pipeline import encode_prompts
from crosslingual.frozen.base import Base
from crosslingual.frozen.encoders import load_multilingual_encoder
from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.pipelines import PROMPTS, draw
from pea.artifact import load_adapter, save_adapter
from pea.method import build_adapter
from pea.pipeline import load_pipeline as load_with_adapter


def write(folder: Path, base: str, encoder: str, **changes: Any) -> str:
    """An adapter with random weights."""
    config = {
        "method": "pea",
        "variant": "published",
        "encoder_width": 12,
        "hidden_width": 24,
    }
    config |= {
        "width": 16,
        "pooled_width": None,
        "rank": 4,
        "max_length": 16,
        "base": base,
    }
    config |= {
        "base_revision": None,
        "text_encoder": encoder,
        "text_encoder_revision": None,
    }
    config |= {
        "languages": ["de", "fr"],
        "guidance_scale": 2.0,
        "null_policy": "adapter",
    }
    torch.manual_seed(0)
    save_adapter(build_adapter(config | changes).state_dict(), config | changes, folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapter(sd: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("adapters") / "sd", sd, encoder)


@pytest.fixture(scope="module")
def sdxl_adapter(sdxl: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("adapters") / "sdxl"
    return write(folder, sdxl, encoder, width=32, pooled_width=20)


def embeddings(adapter: str, prompts: list[str], negative: list[str] | None) -> dict[str, Tensor]:
    """Without any pipeline."""
    module, config = load_adapter(adapter)
    encoder = load_multilingual_encoder(config["text_encoder"], None, config["max_length"])
    return encode_prompts(encoder, module, prompts, negative)


class TestPipelines(conformance.Pipelines):
    families = {"sd": "adapter", "sdxl": "sdxl_adapter"}

    def embeddings(
        self, adapter: str, prompts: list[str], negative: list[str] | None
    ) -> dict[str, Tensor]:
        return embeddings(adapter, prompts, negative)


def test_sdxl_gets_states_and_pooled_vectors_and_the_empty_prompt_through_the_adapter(
    sdxl: str, sdxl_adapter: str
) -> None:
    pipe = pea.attach(Base.open(sdxl).load_pipeline(), sdxl_adapter)
    expected = embeddings(sdxl_adapter, PROMPTS, None)
    found = pipe.encode_prompt(PROMPTS, device="cpu", do_classifier_free_guidance=True)
    prefixes = ("", "negative_", "pooled_", "negative_pooled_")
    for prefix, tensor in zip(prefixes, found, strict=True):
        torch.testing.assert_close(tensor, expected[f"{prefix}prompt_embeds"])
    np.testing.assert_allclose(draw(pipe, prompt=PROMPTS), draw(pipe, **expected), atol=1e-4)


def test_a_base_of_another_family_is_refused(
    sd: str, sdxl: str, adapter: str, sdxl_adapter: str, encoder: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="states of width 16 .* takes width 32 with a pooled"):
        pea.attach(Base.open(sdxl).load_pipeline(), adapter)
    with pytest.raises(ValueError, match="width 32 .* takes width 16 without a pooled vector"):
        pea.attach(Base.open(sd).load_pipeline(), sdxl_adapter)
    wider = write(tmp_path / "wider", sd, encoder, width=24)
    with pytest.raises(ValueError, match="states of width 24 .* use the adapter's base"):
        load_with_adapter(wider)


def test_an_adapter_of_another_method_or_shape_is_refused(
    sd: str, encoder: str, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", sd, encoder, method="mulan")
    with pytest.raises(ValueError, match="an adapter of 'mulan', not of pea"):
        load_adapter(other)
    folder = Path(write(tmp_path / "narrow", sd, encoder))
    (folder / "crosslingual.json").unlink()  # as from an earlier version: a file changes here
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"hidden_width": 24', '"hidden_width": 20'))
    with pytest.raises(ValueError, match=r"projector.0.weight is \(24, 12\), not \(20, 12\)"):
        load_adapter(folder)
