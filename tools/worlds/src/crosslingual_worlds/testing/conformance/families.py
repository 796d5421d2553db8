"""A method on every family of bases: it trains, resumes and exports there, and what it exports is
what stock pipelines see.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crosslingual.adapter.pipeline import load_encoder
from crosslingual.frozen.base import Base
from crosslingual.frozen.families import call_options, family_of
from crosslingual_worlds.testing.conformance.pipelines import NEGATIVE, PICTURE, draw
from crosslingual_worlds.testing.conformance.training import files_of, rows
from crosslingual_worlds.testing.fixtures import SHORT_RUN, Command, Subject, succeeded

PROMPTS = ["Ein Haus", "MAISON"]  # some pipelines make all letters small
PIPELINES = {  # stock pipelines by the fixture of their base
    "sd3": ["StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"],
    "flux": ["FluxPipeline", "FluxImg2ImgPipeline", "FluxControlNetPipeline"],
    "sana": ["SanaPipeline"],
    "sdxl": ["StableDiffusionXLPipeline"],
    "pixart": ["PixArtAlphaPipeline"],
    "pixart_sigma": ["PixArtSigmaPipeline"],
}


class Trained(NamedTuple):
    """A run of two steps: its settings, and its folder."""

    settings: dict[str, Any]
    run: Path


class Expected(NamedTuple):
    """What an export gives of prompts: states (B, L, D), a pooled vector (B, P) or None, the mask
    (B, L) of the encoder, and whether it stands in the place of the denoiser's projection.
    """

    states: Tensor
    pooled: Tensor | None
    mask: Tensor
    is_projected: bool = False


def make(name: str, base: str) -> tuple[Any, dict[str, Any]]:
    """A stock pipeline on a base, and what it takes besides prompts."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(base, trust_remote_code=False)
    options: dict[str, Any] = {"height": 32, "width": 32}
    if name.startswith(("PixArt", "Sana")):
        options["use_resolution_binning"] = False
    pipeline_class, parts = getattr(diffusers, name), pipe.components
    if "Img2Img" in name:
        options["image"] = [PICTURE] * 2
    if "ControlNet" in name:
        heads = {"attention_head_dim": 8, "num_attention_heads": 2}
        torch.manual_seed(0)
        controlnet = diffusers.FluxControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_single_layers=1, **heads
        )
        parts |= {"controlnet": controlnet}
        options["control_image"] = [PICTURE] * 2
    return pipeline_class(**parts), options


class Families:
    """Tests of a method on bases of several families.

    Attributes:
        changes: of the method's short run, by the fixture of a base in `PIPELINES`.
    """

    changes: ClassVar[Mapping[str, Mapping[str, Any]]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """The tests a family."""
        metafunc.parametrize("family", self.changes, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def trained(
        cls,
        family: str,
        subject: Subject,
        command: Command,
        parts: dict[str, Any],
        long_encoder: str,
        shards: str,
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Trained:
        """A run on the shards themselves."""
        settings = {**parts, **SHORT_RUN, **subject.recipe, "text_encoder": long_encoder}
        settings |= {subject.base: request.getfixturevalue(family), "train_data": shards}
        settings |= {"max_train_steps": 2, "checkpointing_steps": 1, **cls.changes[family]}
        run = tmp_path_factory.mktemp(family) / "run"
        succeeded(command("train", output_dir=run, **settings))
        return Trained(settings, run)

    def test_a_stopped_run_resumes_exports_and_draws(
        self, subject: Subject, command: Command, trained: Trained, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        settings = {**trained.settings, "output_dir": run}
        succeeded(command("train", {"terminate": [0, 1]}, **settings))
        succeeded(command("train", **settings, resume_from_checkpoint="latest"))
        assert rows(run) == rows(trained.run)
        succeeded(command("export", checkpoint=run, output_dir=tmp_path / "exported"))
        expected = files_of(trained.run / subject.exported)
        assert files_of(tmp_path / "exported") == expected == files_of(run / subject.exported)
        card = (tmp_path / "exported" / "README.md").read_text()
        options = Base.open(settings[subject.base]).family.adapted_options
        assert all(f", {name}={value})" in card for name, value in options.items())
        size = {"height": 32, "width": 32, "num_inference_steps": 1}
        drawing = {"prompt": "maison", "adapter": tmp_path / "exported", **size}
        succeeded(command("generate", output_dir=tmp_path / "pictures", **drawing))
        assert list((tmp_path / "pictures").rglob("*.png"))

    def test_stock_pipelines_see_what_the_export_gives(
        self, subject: Subject, trained: Trained, family: str, tmp_path: Path
    ) -> None:
        folder = trained.run / subject.exported
        for name in PIPELINES[family]:
            pipe, options = make(name, trained.settings[subject.base])
            importlib.import_module(subject.name).attach(pipe, folder)
            options |= call_options(pipe)
            seen: list[tuple[Tensor, Tensor | None, Tensor | None]] = []
            self._watch(pipe, seen)
            pictures = draw(pipe, prompt=PROMPTS, **options)
            assert pictures.shape == (2, 32, 32, 3) and np.isfinite(pictures).all()
            self._check_seen(subject, folder, seen)
            other = draw(pipe, prompt=PROMPTS[::-1], **options)
            assert np.abs(other - pictures).max() > 1e-4, "the prompt matters"
        if family in ("sdxl", "sd3"):
            with pytest.raises(ValueError, match="leave out prompt_2"):
                draw(pipe, prompt=PROMPTS, prompt_2=PROMPTS[::-1], **options)
            with pytest.raises(ValueError, match="leave out clip_skip"):
                draw(pipe, prompt=PROMPTS, clip_skip=1, **options)
            same = draw(pipe, prompt=PROMPTS, prompt_2=PROMPTS, **options)
            assert np.array_equal(same, draw(pipe, prompt=PROMPTS, **options))
        pipe.save_pretrained(tmp_path / "saved")
        again = type(pipe).from_pretrained(tmp_path / "saved", trust_remote_code=False)
        np.testing.assert_allclose(draw(again, prompt=PROMPTS, **options), pictures, atol=1e-4)
        if family != "flux":  # which has no negative prompt by default
            away = draw(pipe, prompt=PROMPTS, negative_prompt=NEGATIVE, **options)
            assert np.abs(away - pictures).max() > 1e-5, "the negative prompt matters"

    def _watch(self, pipe: Any, seen: list[tuple[Tensor, Tensor | None, Tensor | None]]) -> None:
        """Keeps the states that the denoiser attends to, those of prompts alone, and what comes
        with them. A projection's answer is what an adapter in its place gave.
        """
        family, model = family_of(pipe)
        projected: list[Tensor] = []
        if family.projection is not None:
            getattr(model, family.projection).register_forward_hook(
                lambda _module, _inputs, output: projected.append(output)
            )

        def keep(_: nn.Module, inputs: tuple, named: dict[str, Any], _output: Any) -> None:
            states = named.get("encoder_hidden_states", inputs[1] if len(inputs) > 1 else None)
            others = (named.get(key) for key in ("pooled_projections", "encoder_attention_mask"))
            pooled, mask = others
            if added := named.get("added_cond_kwargs"):  # a UNet's
                pooled = added.get("text_embeds")
            rest = [None if other is None else other[-2:] for other in (pooled, mask)]
            own = projected[-1] if projected else states
            seen.append((states[-2:], own[-2:], *rest))

        model.register_forward_hook(keep, with_kwargs=True)

    def expected(self, subject: Subject, folder: Path) -> Expected:
        """What an export gives of `PROMPTS`, without any pipeline."""
        adapter, config = importlib.import_module(f"{subject.name}.artifact").load_adapter(folder)
        prompts = [Base.open(config["base"]).family.prompt(prompt) for prompt in PROMPTS]
        states, mask = load_encoder(config).encode(prompts)
        with torch.no_grad():
            return Expected(*adapter(states), mask, bool(config.get("replaces_projection")))

    def _check_seen(self, subject: Subject, folder: Path, seen: list[Any]) -> None:
        expected, pooled, mask, is_projected = self.expected(subject, folder)
        given, projected, given_pooled, given_mask = seen[0]
        found = projected if is_projected else given
        if given_mask is None:
            torch.testing.assert_close(found, expected)
        else:  # padded further, under a mask
            counts = given_mask.flatten(1).gt(-1 if given_mask.is_floating_point() else 0).sum(1)
            assert torch.equal(counts, mask.sum(dim=1))
            for row, count in enumerate(counts.tolist()):
                torch.testing.assert_close(found[row, :count], expected[row, :count])
        if pooled is not None:
            torch.testing.assert_close(given_pooled, pooled)
