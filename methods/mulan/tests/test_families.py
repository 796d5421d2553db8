"""Training through the command line in the other forms: captions alone, PixArt, SDXL, the seed's
form, to which languages are added.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from crosslingual.data.records import Record
from crosslingual.data.shards import write_shards

MuLan = Callable[..., dict[str, Any]]


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_captions_alone_train_language_alignment_in_any_languages(
    mulan: MuLan, recipe: dict[str, Any], tmp_path: Path
) -> None:
    """Shards without pictures; the English states are taught in English and in German."""
    texts = ({"en": [f"house {n}"], "de": [f"ein Haus {n}"]} for n in range(12))
    records = (Record(f"{n:05d}", None, text, parallel=True) for n, text in enumerate(texts))
    write_shards(records, tmp_path / "shards")
    settings = {**recipe, "alignment": "language", "languages": ["en", "de"]}
    settings |= {"train_data": tmp_path / "shards", "max_train_steps": 2}
    answer = mulan("train", output_dir=tmp_path / "run", **settings)
    assert answer["codes"] == [0], answer["stderr"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [{"loss", "language"} <= set(json.loads(line)) for line in lines] == [True, True]


def test_pixart_and_sdxl_train_to_adapters_that_draw(
    mulan: MuLan, recipe: dict[str, Any], pixart: str, sdxl: str, shards: str, tmp_path: Path
) -> None:
    changes = {"pixart": {"english_states": False, "pretrained_model_name_or_path": pixart}}
    changes["sdxl"] = {"pretrained_model_name_or_path": sdxl, "replace_add_embedding": True}
    for name, change in changes.items():
        settings = {**recipe, **change, "train_data": shards, "max_train_steps": 2}
        settings |= {"output_dir": tmp_path / name, "lr_scheduler": "constant"}
        answer = mulan("train", **settings)
        assert answer["codes"] == [0], answer["stderr"]
        exported = tmp_path / f"{name}-exported"
        answer = mulan("export", checkpoint=tmp_path / name, output_dir=exported)
        assert answer["codes"] == [0], answer["stderr"]
        weights = [
            folder / "model.safetensors" for folder in (exported, tmp_path / name / "adapter")
        ]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    size = {"height": 32, "width": 32, "num_inference_steps": 2}
    drawing = {"prompt": "maison", "adapter": tmp_path / "sdxl" / "adapter", **size}
    answer = mulan("generate", output_dir=tmp_path / "pictures", **drawing)
    assert answer["codes"] == [0], answer["stderr"]


def test_a_language_added_later_leaves_the_others_bit_by_bit(
    mulan: MuLan, recipe: dict[str, Any], shards: str, tmp_path: Path
) -> None:
    """The seed's form: French after English and German, whose weights no optimiser sees; two ranks
    whose batches hold different languages get one gradient.
    """
    seed = {**recipe, "variant": "seed", "train_data": shards, "max_train_steps": 2}
    first = {**seed, "languages": ["en", "de"], "train_batch_size": 1}
    zero_1 = tmp_path / "ds.json"
    zero_1.write_text('{"zero_optimization": {"stage": 1}}')
    runs = {}
    for name, world_size, options in (
        ("one", 1, {"gradient_accumulation_steps": 4}),
        ("two", 2, {"gradient_accumulation_steps": 2, "deepspeed_config": zero_1}),
    ):
        runs[name] = tmp_path / name
        settings = {**first, **options, "output_dir": runs[name]}
        answer = mulan("train", {"world_size": world_size}, **settings)
        assert set(answer["codes"]) == {0}, answer["stderr"]
    before = adapter_of(runs["one"] / "adapter")
    for key, tensor in adapter_of(runs["two"] / "adapter").items():
        torch.testing.assert_close(tensor, before[key], atol=1e-5, rtol=1e-4)
    added = {**seed, "languages": ["fr"], "init_adapter": runs["one"] / "adapter"}
    added |= {"train_batch_size": 4, "use_ema": True, "output_dir": tmp_path / "added"}
    answer = mulan("train", **added)
    assert answer["codes"] == [0], answer["stderr"]
    after = adapter_of(tmp_path / "added" / "adapter")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    new = {name: tensor for name, tensor in after.items() if name.startswith("languages.2.")}
    assert len(new) == 4 and len(after) == len(before) + 4
    config = json.loads((tmp_path / "added" / "adapter" / "config.json").read_text())
    assert config["languages"] == ["en", "de", "fr"]
    path = tmp_path / "added" / "checkpoint-2" / "deepspeed" / "mp_rank_00_model_states.pt"
    assert set(torch.load(path)["module"]) == set(new), "the checkpoint holds what trains"
    exported = mulan("export", checkpoint=tmp_path / "added", output_dir=tmp_path / "exported")
    assert exported["codes"] == [0], exported["stderr"]
    files = [tmp_path / name / "model.safetensors" for name in ("exported", "added/adapter")]
    assert files[0].read_bytes() == files[1].read_bytes()
