"""An exported adapter in pipelines of all kinds on its base."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from crosslingual.adapter.pipeline import encode_prompts, load_encoder
from crosslingual_worlds.testing import conformance
from template.artifact import adapter_config, load_adapter, save_adapter
from template.method import build_adapter
from template.settings import TrainSettings


def write(folder: Path, base: str, encoder: str) -> str:
    """An adapter with random weights."""
    settings = TrainSettings(
        pretrained_model_name_or_path=base,
        text_encoder=encoder,
        languages=["de", "fr"],
        hidden_width=24,
        guidance_scale=2.0,
    )
    config = adapter_config(settings)
    torch.manual_seed(0)
    return str(save_adapter(build_adapter(config).state_dict(), config, folder))


@pytest.fixture(scope="module")
def adapter(sd: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("adapters") / "sd", sd, encoder)


@pytest.fixture(scope="module")
def sdxl_adapter(sdxl: str, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("adapters") / "sdxl", sdxl, encoder)


class TestPipelines(conformance.Pipelines):
    families = {"sd": "adapter", "sdxl": "sdxl_adapter"}

    def embeddings(
        self, adapter: str, prompts: Sequence[str], negative: Sequence[str]
    ) -> dict[str, Tensor]:
        module, config = load_adapter(adapter)
        return encode_prompts(load_encoder(config), module, list(prompts), list(negative))
