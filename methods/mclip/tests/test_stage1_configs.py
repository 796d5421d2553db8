"""Stage 1's configs can be read, and say what was published."""

import json
from pathlib import Path

import pytest

from crosslingual.cli.settings import parse_settings
from mclip.stage1.settings import TrainEncoderSettings

ROOT = Path(__file__).parents[1]


def read(name: str) -> TrainEncoderSettings:
    words = ["--config", str(ROOT / "configs" / name)]
    return parse_settings(TrainEncoderSettings, words, prog="mclip train-encoder")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*_step_*.yaml")), ids=str)
def test_every_config_is_read_and_names_files_that_go_together(path: Path) -> None:
    settings = read(path.name)
    assert path.stem.endswith(f"_step_{settings.step}")
    if settings.deepspeed_config is not None:
        assert json.loads((ROOT / settings.deepspeed_config).read_text())
    if settings.step == "b":
        before = read(path.name.replace("_step_b", "_step_a"))
        assert settings.translation_model == f"{before.output_dir}/translation"
        assert (settings.train_data, settings.pairs) == (before.train_data, before.pairs)
        assert settings.max_length == before.max_length


@pytest.mark.parametrize("name", ["mclip_base", "mclip_plus"])
def test_published_hyper_parameters(name: str) -> None:
    a, b = read(f"{name}_step_a.yaml"), read(f"{name}_step_b.yaml")
    assert (a.num_decoder_layers, a.decoder_ffn_width, a.num_decoder_heads) == (12, 3072, 12)
    assert (a.learning_rate, a.lr_warmup_steps, a.max_train_steps) == (5e-4, 4000, 400_000)
    assert (b.learning_rate, b.lr_warmup_steps, b.max_train_steps) == (1e-4, 10, 160_000)
    assert (b.ctl_weight, b.ctl_temperature) == (2.0, 0.1)
    for step in (a, b):
        assert (step.adam_beta1, step.adam_beta2, step.lr_scheduler) == (0.9, 0.98, "inverse_sqrt")
        assert (step.max_grad_norm, step.label_smoothing, step.pair_temperature) == (2.0, 0.1, 5.0)
