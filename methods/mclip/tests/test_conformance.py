"""TriKD through the command line: it learns, it can be stopped and killed, and what it gives does
not depend on how the work is shared out.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from crosslingual_worlds.testing import conformance
from crosslingual_worlds.testing.conformance.training import files_of, losses, rows, validations
from crosslingual_worlds.testing.fixtures import Command, Subject, succeeded
from crosslingual_worlds.testing.fork_server import run_ranks
from mclip.artifact import load_model
from mclip.settings import TrainSettings
from mclip.train import make_lamb

SOBER = {"dropout": 0.0, "attention_dropout": 0.0}


@pytest.fixture(scope="module")
def trained(command: Command, recipe: dict[str, Any], tmp_path_factory: Any) -> Any:
    """Runs `mclip train` in a folder of its own, on `recipe` with changes."""

    def run(request: dict[str, Any] | None = None, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("trained") / "run"
        settings = {**recipe, "output_dir": folder, **changes}
        succeeded(command("train", request, **settings))
        return settings["output_dir"]

    return run


@pytest.fixture(scope="module")
def sober(trained: Any) -> Path:
    """Six steps of one process without dropout, which ranks would draw for themselves."""
    return trained(**SOBER)


class TestContinual(conformance.Continual):
    other = ({"ffn_width": 8}, "differ in ffn_width (16 and 8)")


class TestTraining(conformance.Training):
    """A micro-step of fewer rows has another contrast, so no share accumulates."""

    golden = (3.8724892, 3.7885089, 2.6316383, 2.6394677, 3.1349990, 2.6890612)
    shares = ((2, 0, 4, 1), (2, 1, 4, 1), (2, 2, 4, 1))
    atol, rtol = 2e-5, 1e-3
    torchrun_changes = {"train_batch_size": 4}
    learns = ({**SOBER, "max_train_steps": 150, "checkpointing_steps": 150},)

    @pytest.fixture
    def alone(self, sober: Path) -> Path:
        return sober

    @pytest.fixture
    def alone_recipe(self, recipe: dict[str, Any]) -> dict[str, Any]:
        return {**recipe, **SOBER}

    def assert_same_training(self, subject: Subject, run: Path, expected: Path) -> None:
        super().assert_same_training(subject, run, expected)
        assert losses(run) == pytest.approx(losses(expected), rel=1e-4)

    def test_training_lowers_the_loss(
        self, trained: Any, features: str, learning: dict[str, Any]
    ) -> None:
        """Mean recall on the samples themselves, by chance (1 + 5 + 10) / 24 / 3 = 0.22 in German;
        in the others the samples that lack a caption are left out.
        """
        settings = {"validation_steps": 75, "validation_data": features, **learning}
        run = trained(**settings, lr_scheduler="constant")
        before, after = validations(run, "validation_mean_recall")
        assert after > 0.6 and after > before
        names = [f"validation_mean_recall_{language}" for language in ("en", "de", "fr")]
        parts = [validations(run, name)[1] for name in names]
        assert after == pytest.approx(sum(parts) / 3)
        assert sum(losses(run)[-3:]) < 0.6 * sum(losses(run)[:3])


def test_accumulated_micro_steps_are_batches_of_their_own(
    trained: Any, subject: Subject, sober: Path
) -> None:
    """Two of four rows are not one of eight: the contrast is over fewer rows, so the loss is lower
    from the first step. How processes share them changes nothing.
    """
    settings = {"gradient_accumulation_steps": 2, **SOBER}
    alone = trained(**settings, train_batch_size=4)
    shared = trained({"world_size": 2}, **settings, train_batch_size=2)
    TestTraining().assert_same_training(subject, shared, alone)
    assert losses(alone)[0] < losses(sober)[0] - 0.3


def test_ranks_draw_dropout_for_themselves(trained: Any, whole: Path) -> None:
    """So two processes differ from one at the first step already, by masks; without dropout they
    agree to 1e-4 (`assert_same_training`).
    """
    run = trained({"world_size": 2}, train_batch_size=4, max_train_steps=1)
    assert 1e-3 < abs(losses(run)[0] - losses(whole)[0]) / losses(whole)[0] < 0.2


def test_holding_few_activations_trains_the_same(
    trained: Any, subject: Subject, sober: Path
) -> None:
    TestTraining().assert_same_training(subject, trained(**SOBER, embed_batch_size=3), sober)


def test_a_bundle_stands_alone_and_knows_its_encoders_weights(
    command: Command, whole: Path, encoder: str, tmp_path: Path
) -> None:
    for _ in range(2):  # over an earlier one as well
        bundle = {"checkpoint": whole, "output_dir": tmp_path / "bundle", "bundle_encoder": True}
        succeeded(command("export", **bundle))
    moved = (tmp_path / "bundle").rename(tmp_path / "moved")
    assert sorted(os.listdir(tmp_path)) == ["moved"]
    trikd, config = load_model(moved)
    assert config["text_encoder"] == str(moved / "encoder")
    assert not any(p.requires_grad for p in trikd.parameters()) and not trikd.training
    expected, found = Path(encoder, "model.safetensors"), moved / "encoder" / "model.safetensors"
    assert found.read_bytes() == expected.read_bytes()
    found.write_bytes(found.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    with pytest.raises(ValueError, match="are not those that .* was trained on"):
        load_model(moved)


def test_an_average_of_the_weights_is_exported_if_asked_for(
    command: Command, trained: Any, tmp_path: Path
) -> None:
    run = trained(use_ema=True, ema_decay=0.5, max_train_steps=2)
    succeeded(command("export", checkpoint=run, output_dir=tmp_path / "model"))
    assert files_of(tmp_path / "model") == files_of(run / "model")
    assert files_of(run / "model") != files_of(trained(max_train_steps=2) / "model")


def work(rank: int, world_size: int, folder: Path) -> None:
    """In a process of its own: an engine whose temperature has run away, in ZeRO's copy too."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param

    from crosslingual.training.run import Run
    from mclip.method import TriKD
    from mclip.step import limit_scale

    shape = {"clip_width": 4, "width": 4, "num_layers": 1, "num_heads": 1, "ffn_width": 4}
    shape |= {"dropout": 0.0, "attention_dropout": 0.0}
    for stage in (0, 1):
        config = folder / "ds.json"
        config.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
        run = str(folder / f"run{stage}")
        settings = TrainSettings(deepspeed_config=str(config), output_dir=run)
        engine = Run(settings).prepare(TriKD(shape))
        logit_scale = engine.module.logit_scale
        for wanted, expected in ((4.0, 4.0), (6.0, math.log(100))):
            logit_scale.data.fill_(wanted)
            if stage:
                safe_set_full_fp32_param(logit_scale, logit_scale.data)
            limit_scale(engine)
            copies = [logit_scale, *([safe_get_full_fp32_param(logit_scale)] if stage else [])]
            assert [copy.item() for copy in copies] == pytest.approx([expected] * len(copies))


def test_the_learned_scale_is_held_at_100_in_zeros_copy_too(tmp_path: Path) -> None:
    run_ranks(__file__, 1, tmp_path)


def test_lamb_takes_the_papers_steps() -> None:
    """Algorithm 2 without the corrections of Adam's moments, which the trust ratio cancels but for
    the decay; norms of weights beyond 10 count as they are.
    """
    generator = torch.Generator().manual_seed(0)
    parameters = [
        nn.Parameter(torch.randn(30, 20, generator=generator)),
        nn.Parameter(torch.ones(3)),
    ]
    parameters[0].data *= 2
    optimizer = make_lamb(parameters, lr=1e-2, betas=(0.9, 0.999), weight_decay=0.1)
    plain = [parameter.detach().clone() for parameter in parameters]
    moments = [(torch.zeros_like(x), torch.zeros_like(x)) for x in plain]
    assert plain[0].norm() > 40
    for _ in range(4):
        for x, (m, v), parameter in zip(plain, moments, parameters, strict=True):
            g = torch.randn(x.shape, generator=generator)
            parameter.grad = g.clone()
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            update = m / (v.sqrt() + 1e-6) + 0.1 * x
            x -= 1e-2 * x.norm() / update.norm() * update
        optimizer.step()
        torch.testing.assert_close([p.detach() for p in parameters], plain)


def test_lamb_trains_and_resumes_bit_by_bit(trained: Any) -> None:
    lamb = {"optimizer": "lamb", "max_train_steps": 4}
    whole, cut = trained(**lamb), trained({"terminate": [0, 1]}, **lamb)
    assert len(rows(cut)) == 1
    resumed = trained(**lamb, output_dir=cut, resume_from_checkpoint="latest")
    assert rows(resumed) == rows(whole)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
