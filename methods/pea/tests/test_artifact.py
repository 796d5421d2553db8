"""Published state dicts as adapters; pickles that are more than that are never run."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pea.artifact import import_published, load_adapter
from pea.method import build_adapter
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
    with pytest.raises(ValueError, match="not a published PEA: names conv.weight"):
        import_published(ImportSettings(**given))
    torch.save({"state_dict": {"step": 3}}, tmp_path / "proj.pth")
    with pytest.raises(ValueError, match="no state dict of tensors"):
        import_published(ImportSettings(**given))
    (tmp_path / "proj.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match="is not opened"):
        import_published(ImportSettings(**given))
