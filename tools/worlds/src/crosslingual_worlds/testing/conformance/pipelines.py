"""An export in stock pipelines of all kinds on its base: what they see and draw is what it says."""

import importlib
import logging
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    LCMScheduler,
    ModelMixin,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from PIL import Image
from torch import Tensor

from crosslingual.adapter.text_encoder import AdaptedTextEncoder
from crosslingual_worlds.testing.fixtures import Subject
from crosslingual_worlds.testing.host import unchanged_host

PROMPTS, NEGATIVE = ["ein Haus", "maison"], ["grün", "bleu"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype("uint8"))
MASK = Image.fromarray(np.pad(np.full((16, 32), 255, "uint8"), ((0, 16), (0, 0))))
OFFLOADS = ("enable_model_cpu_offload", "enable_sequential_cpu_offload")
KINDS = ("text2img", "img2img", "inpaint", "controlnet", "lcm", "lora")


def lora(unet: torch.nn.Module) -> dict[str, Tensor]:
    """A LoRA of rank 2 on the cross-attentions, by the names that diffusers saves."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, layer in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            down, up = (2, layer.in_features), (layer.out_features, 2)
            state[f"unet.{name}.lora_A.weight"] = torch.randn(down, generator=generator)
            state[f"unet.{name}.lora_B.weight"] = torch.randn(up, generator=generator)
    return state


def make(kind: str, base: str) -> tuple[Any, dict[str, Any]]:
    """A pipeline of a kind on a Stable Diffusion base, and what it takes besides prompts."""
    pipe = DiffusionPipeline.from_pretrained(base, trust_remote_code=False)
    if kind == "img2img":
        return StableDiffusionImg2ImgPipeline(**pipe.components), {"image": [PICTURE] * 2}
    if kind == "inpaint":
        pictures = {"image": PICTURE, "mask_image": MASK}
        return StableDiffusionInpaintPipeline(**pipe.components), pictures
    if kind == "controlnet":
        torch.manual_seed(0)
        controlnet = ControlNetModel.from_unet(pipe.unet)
        controlled = StableDiffusionControlNetPipeline(**pipe.components, controlnet=controlnet)
        return controlled, {"image": [PICTURE] * 2}
    if kind == "lcm":
        pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    if kind == "lora":
        pipe.load_lora_weights(lora(pipe.unet))
    return pipe, {}


def draw(pipe: Any, **inputs: Any) -> np.ndarray:
    """Pictures of a few steps, always with the same noise."""
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np", **inputs}
    return pipe(**options, generator=torch.Generator().manual_seed(0)).images


def weighted(pipe: Any, prompt: str) -> tuple[Tensor, Tensor | None]:
    """What compel makes of a prompt: states (1, L, D) and, on SDXL, the pooled vector (1, P)."""
    from compel import Compel, ReturnedEmbeddingsType  # which methods without pipelines do without

    if pipe.components.get("text_encoder_2") is None:
        return Compel(tokenizer=pipe.tokenizer, text_encoder=pipe.text_encoder)(prompt), None
    return Compel(
        tokenizer=pipe.tokenizer_2,
        text_encoder=pipe.text_encoder_2,
        returned_embeddings_type=ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED,
        requires_pooled=True,
    )(prompt)


def check_weights_of_words(pipe: Any) -> None:
    """Asserts that compel reads a prompt as the pipeline does, and that weights change pictures."""
    once = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    expected = pipe.encode_prompt("ein Haus", device="cpu", **once)
    states, pooled = weighted(pipe, "ein Haus")
    torch.testing.assert_close(states, expected[0])
    prompts = {"prompt_embeds": weighted(pipe, "(ein Haus)1.5")[0]}
    prompts["negative_prompt_embeds"], negative_pooled = weighted(pipe, "")
    if pooled is not None:
        torch.testing.assert_close(pooled, expected[2])
        prompts["pooled_prompt_embeds"] = pooled
        prompts["negative_pooled_prompt_embeds"] = negative_pooled
    drawn = draw(pipe, **prompts)
    assert np.isfinite(drawn).all()
    assert np.abs(drawn - draw(pipe, **{**prompts, "prompt_embeds": states})).max() > 1e-4


def parts_of(pipe: Any) -> list[Any]:
    """A pipeline's parts with all modules in them, and the configs, to compare with later ones."""
    parts = list(pipe.components.values())
    modules = [m for part in parts if isinstance(part, torch.nn.Module) for m in part.modules()]
    configs = [dict(part.config) for part in parts if isinstance(part, ModelMixin)]
    return [*map(id, parts), *map(id, modules), dict(pipe.config), *configs]


class Pipelines:
    """Tests of an export in pipelines.

    A subclass defines the module's fixture `adapter`, the folder of an export with random weights
    on `sd`, and perhaps one a family in `families`.

    Attributes:
        families: fixtures of bases to the fixtures of exports that are saved with their pipeline.
        states_are_tokens: whether the states that a pipeline gets are those of a prompt's tokens,
            one for each, so that words can be weighed.
    """

    families: ClassVar[Mapping[str, str]] = {"sd": "adapter"}
    states_are_tokens: ClassVar[bool] = True

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test a kind of pipeline and a family."""
        if "kind" in metafunc.fixturenames:
            metafunc.parametrize("kind", KINDS)
        if "family" in metafunc.fixturenames:
            metafunc.parametrize("family", self.families)

    def embeddings(
        self, adapter: str, prompts: Sequence[str], negative: Sequence[str]
    ) -> dict[str, Tensor]:
        """`prompt_embeds` and `negative_prompt_embeds` without any pipeline."""
        raise NotImplementedError

    def attach(self, subject: Subject, pipe: Any, adapter: str) -> Any:
        """Attaches an export to a pipeline as a user does."""
        return importlib.import_module(subject.name).attach(pipe, adapter)

    def load(self, subject: Subject, adapter: str, *base: str) -> Any:
        """Loads the base with an export attached, as benchmarks do."""
        return importlib.import_module(subject.name).METHOD.load_pipeline(adapter, *base)

    def test_every_pipeline_sees_the_embeddings_that_the_export_gives(
        self, subject: Subject, sd: str, adapter: str, kind: str
    ) -> None:
        pipe, inputs = make(kind, sd)
        assert self.attach(subject, pipe, adapter) is pipe
        expected = self.embeddings(adapter, PROMPTS, NEGATIVE)
        states, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True, negative_prompt=NEGATIVE)[:2]
        torch.testing.assert_close(states, expected["prompt_embeds"])
        torch.testing.assert_close(negative, expected["negative_prompt_embeds"])
        inputs |= {"num_inference_steps": 4}
        from_prompts = draw(pipe, prompt=PROMPTS, negative_prompt=NEGATIVE, **inputs)
        assert from_prompts.shape == (2, 32, 32, 3) and np.isfinite(from_prompts).all()
        np.testing.assert_allclose(from_prompts, draw(pipe, **expected, **inputs), atol=1e-4)
        flipped = {**expected, "prompt_embeds": expected["prompt_embeds"].flip(0)}
        other = draw(pipe, **flipped, **inputs)
        assert np.abs(other - from_prompts).max() > 1e-3, "the prompt matters"
        if kind == "lora":
            pipe.disable_lora()
            without = draw(pipe, prompt=PROMPTS, negative_prompt=NEGATIVE, **inputs)
            assert np.abs(without - from_prompts).max() > 1e-3, "the LoRA matters"

    def test_load_pipeline_is_the_base_with_the_export_attached(
        self, subject: Subject, sd: str, adapter: str
    ) -> None:
        attached = self.attach(
            subject, DiffusionPipeline.from_pretrained(sd, trust_remote_code=False), adapter
        )
        expected = draw(attached, prompt="ein Haus")
        for pipe in (self.load(subject, adapter), self.load(subject, adapter, sd)):
            assert np.array_equal(draw(pipe, prompt="ein Haus"), expected)
            assert type(pipe) is type(attached)

    def test_a_pipeline_saved_with_its_export_is_loaded_by_diffusers_and_draws_the_same(
        self, subject: Subject, request: pytest.FixtureRequest, tmp_path: Path, family: str
    ) -> None:
        base = request.getfixturevalue(family)
        adapter = request.getfixturevalue(self.families[family])
        pipe = self.attach(
            subject, DiffusionPipeline.from_pretrained(base, trust_remote_code=False), adapter
        )
        pipe.save_pretrained(tmp_path / "saved")
        assert not list((tmp_path / "saved").rglob("*.bin"))
        again = DiffusionPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=False)
        pictures = [draw(p, prompt=PROMPTS, negative_prompt=NEGATIVE) for p in (pipe, again)]
        np.testing.assert_allclose(*pictures, atol=1e-5)

    def test_library_calls_leave_the_host_program_as_it_found_it(
        self, subject: Subject, sd: str, adapter: str
    ) -> None:
        """Once a first call has imported what it needs; after an error too."""
        self.load(subject, adapter)
        with unchanged_host():
            self.load(subject, adapter)
        pipe = DiffusionPipeline.from_pretrained(sd, trust_remote_code=False)
        with unchanged_host():
            self.attach(subject, pipe, adapter)
        with unchanged_host(), pytest.raises((FileNotFoundError, ValueError)):
            self.load(subject, adapter, "no/such/base")
        with unchanged_host(), pytest.raises(FileNotFoundError):
            self.attach(subject, pipe, "no/such/adapter")

    def test_a_host_hears_of_a_prompt_that_the_export_cuts(
        self, subject: Subject, sd: str, adapter: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By the log of diffusers, once a prompt, which attaching has not muted."""
        pipe = self.attach(
            subject, DiffusionPipeline.from_pretrained(sd, trust_remote_code=False), adapter
        )
        diffusers_log = logging.getLogger("diffusers")
        diffusers_log.addHandler(caplog.handler)
        try:
            pipe.encode_prompt("ein Haus " * 99 + "am Ende", "cpu", 1, True, negative_prompt="")
        finally:
            diffusers_log.removeHandler(caplog.handler)
        lost = [r.getMessage() for r in caplog.records if "was truncated" in r.getMessage()]
        assert len(lost) == 1 and "am ende" in lost[0].lower()

    def test_what_a_replaced_text_encoder_cannot_do_is_said_in_one_sentence(
        self, subject: Subject, sd: str, adapter: str
    ) -> None:
        pipe = self.attach(
            subject, DiffusionPipeline.from_pretrained(sd, trust_remote_code=False), adapter
        )
        for asked in (pipe, self.load(subject, adapter)):
            with pytest.raises(ValueError, match="leave out clip_skip"):
                draw(asked, prompt="ein Haus", clip_skip=1)
        weights = lora(pipe.unet)
        layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
        of_clip = {f"{layer}.lora_A.weight": torch.ones(2, 8)}
        of_clip[f"{layer}.lora_B.weight"] = torch.ones(8, 2)
        without = draw(pipe, prompt="ein Haus")
        with pytest.warns(UserWarning, match="^2 tensors of this LoRA file belong to text_encoder"):
            pipe.load_lora_weights({**weights, **of_clip}, adapter_name="both")
        drawn = draw(pipe, prompt="ein Haus")
        assert np.abs(drawn - without).max() > 1e-3
        pipe.delete_adapters("both")
        pipe.load_lora_weights(weights)
        assert np.array_equal(draw(pipe, prompt="ein Haus"), drawn)

    @pytest.mark.parametrize("offload", OFFLOADS)
    def test_an_offloaded_pipeline_is_refused_and_stays_as_it_was(
        self, subject: Subject, request: pytest.FixtureRequest, family: str, offload: str
    ) -> None:
        pipe = DiffusionPipeline.from_pretrained(
            request.getfixturevalue(family), trust_remote_code=False
        )
        getattr(pipe, offload)(device="cpu")
        before = parts_of(pipe)
        with pytest.raises(ValueError, match="attach first"):
            self.attach(subject, pipe, request.getfixturevalue(self.families[family]))
        assert parts_of(pipe) == before

    def test_an_adapted_pipeline_moves_whole_models_and_refuses_to_move_layers(
        self, subject: Subject, request: pytest.FixtureRequest, family: str
    ) -> None:
        base, folder = (request.getfixturevalue(name) for name in (family, self.families[family]))
        pipe = self.attach(
            subject, DiffusionPipeline.from_pretrained(base, trust_remote_code=False), folder
        )
        pictures = draw(pipe, prompt=PROMPTS)
        if any(isinstance(part, AdaptedTextEncoder) for part in pipe.components.values()):
            with pytest.raises(ValueError, match="layer by layer: call enable_model_cpu_offload"):
                pipe.enable_sequential_cpu_offload(device="cpu")
        pipe.enable_model_cpu_offload(device="cpu")
        np.testing.assert_allclose(draw(pipe, prompt=PROMPTS), pictures, atol=1e-5)

    def test_the_text_encoder_answers_the_calls_that_clip_answers(
        self, subject: Subject, sd: str, adapter: str
    ) -> None:
        """Such as those of libraries that weight words: they give no mask, or one of ones."""
        pipe = self.attach(
            subject, DiffusionPipeline.from_pretrained(sd, trust_remote_code=False), adapter
        )
        length = pipe.tokenizer.model_max_length
        tokens = pipe.tokenizer(
            PROMPTS, padding="max_length", max_length=length, return_tensors="pt"
        )
        ids = tokens.input_ids
        expected = pipe.text_encoder(ids, attention_mask=tokens.attention_mask)[0]
        ones = torch.ones_like(ids)
        for options in (
            {},
            {"attention_mask": ones},
            {"attention_mask": ones.bool(), "output_hidden_states": True, "return_dict": True},
            {"position_ids": None, "output_attentions": None},
        ):
            torch.testing.assert_close(pipe.text_encoder(ids, **options)[0], expected)
        torch.testing.assert_close(pipe.text_encoder(input_ids=ids, return_dict=False)[0], expected)
        assert pipe.text_encoder.get_input_embeddings().num_embeddings >= len(pipe.tokenizer)

    def test_compel_weighs_words_where_states_are_those_of_tokens(
        self, subject: Subject, request: pytest.FixtureRequest, family: str
    ) -> None:
        pipe = DiffusionPipeline.from_pretrained(
            request.getfixturevalue(family), trust_remote_code=False
        )
        self.attach(subject, pipe, request.getfixturevalue(self.families[family]))
        if not self.states_are_tokens:
            with pytest.raises(RuntimeError, match="expanded size"):
                weighted(pipe, "ein Haus")
            return
        check_weights_of_words(pipe)

    def test_the_snippet_of_the_model_card_runs(self, adapter: str, tmp_path: Path) -> None:
        """It says `this/folder`, and is run where that is the export."""
        (tmp_path / "this").mkdir()
        (tmp_path / "this" / "folder").symlink_to(adapter)
        card = (Path(adapter) / "README.md").read_text()
        snippets = re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
        assert snippets, "a model card says how it is used"
        for snippet in snippets:
            command = [sys.executable, "-c", snippet]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, f"{snippet}\n{done.stderr}"
