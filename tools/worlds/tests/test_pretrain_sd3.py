"""The pretraining of `testbed:sd3`, in its real shape, on few scenes."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from crosslingual.frozen.base import Base
from crosslingual_worlds.drawn.captions import caption
from crosslingual_worlds.drawn.evaluation import EVALUATION
from crosslingual_worlds.drawn.world import sample_scenes

SCRIPTS = Path(__file__).parents[1] / "pretrain"
SCENES = 6


class Scripts(NamedTuple):
    """The script, the loop that it shares with others, and what the frozen parts give."""

    sd3: Any
    loop: Any
    pool: dict[str, Tensor]

    def trained(self, work: Path, num_steps: int, fails_at: int | None = None) -> nn.ModuleDict:
        """The parts after a run of `num_steps`, or after one that dies."""
        torch.manual_seed(0)
        parts = self.sd3.make_parts()

        def loss_of_step(generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            if step == fails_at:
                raise InterruptedError
            return self.sd3.loss_of(parts, self.pool, generator)

        recipe = self.loop.Recipe("sd3", num_steps, 1e-3, 1, fused=True, muon_learning_rate=1e-2)
        self.loop.train(recipe, parts, loss_of_step, work, save_every_s=0)
        return parts


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripts]:
    """The scripts import one another by their bare names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        sd3, loop = importlib.import_module("sd3"), importlib.import_module("loop")
        for name, value in {"POOL_SIZE": SCENES, "BATCH": 4, "LONG_BATCH": 2}.items():
            patch.setattr(sd3, name, value)
        patch.setattr(loop.dist, "get_rank", lambda: 0)
        patch.setattr(loop.dist, "get_world_size", lambda: 1)
        yield Scripts(sd3, loop, sd3.load_pool(tmp_path_factory.mktemp("pool")))


@pytest.mark.parametrize("length", [16, 256])
def test_a_step_sees_of_captions_what_the_stock_pipeline_gives(
    scripts: Scripts, length: int
) -> None:
    sd3, pool = scripts.sd3, scripts.pool
    parts = sd3.make_parts().eval()
    pipe = sd3.make_pipeline(parts, pool)
    texts = [
        caption(scene, "en")
        for scene in sample_scenes("train", SCENES, 31, singles=sd3.SINGLES_SHARE)
    ]
    rows = torch.cat([pool["captions"][:, 0], torch.tensor([len(pool["ids"]) - 1])])
    with torch.no_grad():
        states, pooled = sd3.encode(parts, pool, rows, length)
        options = {"max_sequence_length": length, "do_classifier_free_guidance": False}
        given = pipe.encode_prompt([*texts, ""], None, None, **options)
    assert states.shape == (SCENES + 1, 16 + length, 192)
    torch.testing.assert_close(states, given[0], atol=2e-3, rtol=1e-3)  # kept in fp16
    torch.testing.assert_close(pooled, given[2])


def test_a_stopped_run_resumes_as_if_it_had_not_stopped(scripts: Scripts, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    expected = scripts.trained(tmp_path / "whole", 3)
    with pytest.raises(InterruptedError):
        scripts.trained(tmp_path / "stopped", 3, fails_at=2)
    found = scripts.trained(tmp_path / "stopped", 3)
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_muon_trains_the_weights_of_linear_layers_and_adamw_the_rest(scripts: Scripts) -> None:
    parts = scripts.sd3.make_parts()
    recipe = scripts.loop.Recipe("sd3", 3, 1e-3, muon_learning_rate=1e-2)
    (adamw, adamw_rate), (muon, muon_rate) = scripts.loop.make_optimizers(recipe, parts).items()
    assert (adamw_rate, muon_rate) == (1e-3, 1e-2)
    held = [{id(p) for p in each.param_groups[0]["params"]} for each in (adamw, muon)]
    linear = {id(m.weight) for m in parts.modules() if isinstance(m, nn.Linear)}
    assert held[1] == linear
    assert held[0] == {id(p) for p in parts.parameters()} - linear
    alone = scripts.loop.make_optimizers(scripts.loop.Recipe("sd3", 3, 1e-3), parts)
    assert [type(each) for each in alone] == [torch.optim.AdamW]


def test_a_checkpoint_of_an_earlier_version_is_refused(scripts: Scripts, tmp_path: Path) -> None:
    torch.save({"step": 1}, tmp_path / "sd3.pt")
    with pytest.raises(ValueError, match=r"sd3\.pt is of an earlier version: remove it"):
        scripts.trained(tmp_path, 3)


def test_steps_lower_the_loss_and_teach_all_three_parts(scripts: Scripts, tmp_path: Path) -> None:
    def loss(parts: nn.ModuleDict) -> float:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(4)]
        with torch.no_grad():
            losses = [scripts.sd3.loss_of(parts, scripts.pool, seed)[0] for seed in seeds]
        return float(torch.stack(losses).mean())

    parts = scripts.trained(tmp_path, 12)
    assert loss(parts) < 0.9 * loss(scripts.sd3.make_parts())
    scripts.sd3.loss_of(parts, scripts.pool, torch.Generator().manual_seed(0))[0].backward()
    reached = {n.split(".")[0] for n, p in parts.named_parameters() if p.grad.abs().sum() > 0}
    assert reached == set(parts)


def test_the_folder_is_small_and_stock_pipelines_draw_from_it(
    scripts: Scripts, tmp_path: Path
) -> None:
    sd3, folder = scripts.sd3, tmp_path / "sd3"
    parts = sd3.make_parts()
    nn.init.normal_(parts["transformer"].proj_out.weight, std=0.1)  # else it predicts zeros
    sd3.export(sd3.make_pipeline(parts, scripts.pool), folder)
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a big red star", num_inference_steps=1).images[0].size == (64, 64)

    base = Base.open(str(folder))
    assert base.family.name == "sd3" and base.process.shift == sd3.SHIFT
    mean, std = (float(scripts.pool[name]) for name in ("mean", "std"))
    assert (base.latents.shift, base.latents.scale) == pytest.approx((mean, 1 / std))
    pipe, lengths = base.load_pipeline(), set()

    def keep(_: nn.Module, __: tuple, named: dict[str, Any]) -> None:
        lengths.add(named["encoder_hidden_states"].shape[1])

    pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True)
    EVALUATION.judge_prompts(pipe, sample_scenes("val", 1, 0), "en")
    states = base.load_text(torch.device("cpu")).encode(["a big red star"]).states
    assert lengths == {states.shape[1]} == {32}, "T5 reads as many tokens as its config says"
