"""Weights on this disk are told by what they hold."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crosslingual.features.frozen_parts import FrozenParts
from crosslingual.frozen.base import Base
from crosslingual.frozen.weights import locate, quiet_libraries, weights_hash
from crosslingual_worlds.drawn import WEIGHTS as TESTBED_WEIGHTS


def write(path: Path, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.full((3,), value)}, path)


def test_a_hash_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    write(tmp_path / "a" / "model.safetensors", 1.0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = weights_hash(str(tmp_path / "a"))
    assert weights_hash(str(tmp_path / "b")) == first
    write(tmp_path / "b" / "model.safetensors", 2.0)
    assert weights_hash(str(tmp_path / "b")) != first


def test_only_the_parts_that_are_used_count(tmp_path: Path) -> None:
    write(tmp_path / "vae" / "model.safetensors", 1.0)
    write(tmp_path / "unet" / "model.safetensors", 1.0)
    first = weights_hash(str(tmp_path), ("vae", "text_encoder"))
    write(tmp_path / "unet" / "model.safetensors", 2.0)
    assert weights_hash(str(tmp_path), ("vae", "text_encoder")) == first
    write(tmp_path / "vae" / "model.safetensors", 2.0)
    assert weights_hash(str(tmp_path), ("vae", "text_encoder")) != first


def test_a_hub_id_is_told_by_its_revision_and_an_empty_folder_by_nothing(tmp_path: Path) -> None:
    assert weights_hash("FacebookAI/xlm-roberta-base") is None
    assert weights_hash("testbed:clip") != weights_hash("testbed:xlm-r")
    with pytest.raises(FileNotFoundError, match="no safetensors in"):
        weights_hash(str(tmp_path))


def test_features_are_told_apart_by_replaced_weights_of_either_part(tmp_path: Path) -> None:
    for name in ("sd", "xlm-r"):
        shutil.copytree(TESTBED_WEIGHTS / name, tmp_path / name)

    def made_of() -> dict:
        base = Base.open(str(tmp_path / "sd"))
        return FrozenParts(base, str(tmp_path / "xlm-r"), ["de"]).made_of

    before = made_of()
    assert made_of() == before
    write(tmp_path / "xlm-r" / "model.safetensors", 1.0)
    assert made_of()["encoder_weights"] != before["encoder_weights"]
    write(tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors", 1.0)
    assert made_of()["base_weights"] != before["base_weights"]


def test_a_local_folder_is_named_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "encoder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("encoder") == str(tmp_path / "encoder")
    assert locate("testbed:xlm-r") == "testbed:xlm-r"
    assert locate("FacebookAI/xlm-roberta-base") == "FacebookAI/xlm-roberta-base"


def test_loading_leaves_the_libraries_as_talkative_as_they_were() -> None:
    import diffusers
    import transformers
    from huggingface_hub.utils import are_progress_bars_disabled

    def state() -> list[object]:
        logs = [library.utils.logging for library in (diffusers, transformers)]
        said = [(log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
        return [*said, are_progress_bars_disabled()]

    before = state()
    try:
        for is_quiet in (False, True):
            for log in (diffusers.utils.logging, transformers.utils.logging):
                (log.disable_progress_bar if is_quiet else log.enable_progress_bar)()
                log.set_verbosity(30 if is_quiet else 20)
            wanted = state()
            with pytest.raises(RuntimeError), quiet_libraries():
                assert state()[0] == state()[1] == (40, False)
                raise RuntimeError
            assert state() == wanted
    finally:
        for log, (level, has_bar) in zip(
            (diffusers.utils.logging, transformers.utils.logging), before[:2], strict=True
        ):
            log.set_verbosity(level)
            (log.enable_progress_bar if has_bar else log.disable_progress_bar)()


def test_a_base_in_fp16_alone_is_read_and_one_in_pickles_names_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "sd"
    shutil.copytree(TESTBED_WEIGHTS / "sd", folder)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    whole = Base.open("testbed:sd").load_vae(torch.device("cpu")).state_dict()
    path.rename(path.with_suffix(".fp16.safetensors"))
    read = Base(str(folder), None).load_vae(torch.device("cpu")).state_dict()
    assert all(torch.equal(read[name], whole[name]) for name in whole)
    path.with_suffix(".fp16.safetensors").rename(path.with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match=r"anew by `python -c .*DiffusionPipeline.*FOLDER"):
        Base(str(folder), None).load_vae(torch.device("cpu"))


def test_a_hub_base_in_fp16_alone_names_the_download_whose_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hub's cache, as without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    entry = tmp_path / "models--me--halved"
    folder = entry / "snapshots" / ("0" * 40)
    shutil.copytree(TESTBED_WEIGHTS / "sd", folder)
    for path in [*folder.glob("*/*.safetensors")]:
        path.rename(path.with_suffix(".fp16.safetensors"))
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(folder.name)
    with pytest.raises(FileNotFoundError, match="`hf download me/halved --local-dir FOLDER`"):
        Base.open("me/halved").load_model()
    pipe = Base.open(str(folder)).load_pipeline()
    expected = Base.open("testbed:sd").load_model().state_dict()
    assert all(torch.equal(pipe.unet.state_dict()[n], tensor) for n, tensor in expected.items())
