"""What every family of bases promises, on miniatures of the true formats; and that adapters learn
through each, whatever its noise and its attention.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from torch import Tensor, nn

from crosslingual.frozen.base import Base, Conditioning
from crosslingual.frozen.denoiser import TextShape
from crosslingual.frozen.families import call_options, family_of, find_family
from crosslingual.frozen.families.flux import pack, unpack
from crosslingual.frozen.families.sd import UNetDenoiser
from crosslingual.frozen.schedule import Latents
from crosslingual_worlds.testing.miniatures import (
    RESOLUTION,
    write_base,
    write_flux,
    write_pixart,
    write_sana,
    write_sd,
    write_sd3,
    write_sdxl,
)

CPU, ROWS, WIDTH = torch.device("cpu"), 3, 16
WRITERS = {"sd": write_sd, "sdxl": write_sdxl, "pixart": write_pixart}
FLOWS = {"sd3": write_sd3, "flux": write_flux, "sana": write_sana}
FLOWS["schnell"] = partial(write_flux, guidance_embeds=False)  # FLUX.1-schnell is told no guidance
WRITERS |= FLOWS
SCALES = {"sd3": (1.5305, 0.0609), "flux": (0.3611, 0.1159), "sana": (0.41407, 0.0)}
SCALES["schnell"] = SCALES["flux"]
EXPECTED = {
    "sd": TextShape(16, None, 16, 16, (16,)),
    "sdxl": TextShape(32, 20, 16, 32, (16, 16), added_embedding=(44, 32)),
    "pixart": TextShape(8, None, 120, 16, (8,), takes_mask=True),
    "sd3": TextShape(32, 36, 16 + 256, 32, (32,)),
    "flux": TextShape(16, 16, 512, 16, (16,)),
    "sana": TextShape(8, None, 300, 16, (8,), takes_mask=True),
}
EXPECTED["schnell"] = EXPECTED["flux"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    return {
        name: Base.open(write(tmp_path_factory.mktemp(name))) for name, write in WRITERS.items()
    }


def latents() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(ROWS, 4, 4, 4, generator=generator)
    return {"latent_mean": mean, "latent_std": torch.ones_like(mean)}


def noisy(base: Base) -> Any:
    return base.schedule(device=CPU).draw(latents(), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", WRITERS)
def test_a_family_is_recognised_and_says_what_text_it_takes(
    bases: dict[str, Base], name: str
) -> None:
    base = bases[name]
    assert base.family.name == {"schnell": "flux"}.get(name, name)
    assert base.text == EXPECTED[name]
    assert base.latents == Latents(4, *SCALES.get(name, (0.18215, 0.0)), 8)
    assert base.text.takes_mask == base.family.takes_mask
    pipe = base.load_pipeline()
    family, model = family_of(pipe)
    assert family is base.family and model is pipe.components[family.part]
    assert not any(p.requires_grad for p in model.parameters())
    assert base.count_parameters()["denoiser"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", WRITERS)
def test_prediction_is_what_the_stock_pipeline_calls_its_model_for(
    bases: dict[str, Base], name: str
) -> None:
    """The stock pipeline's first call of its model, of the same latents, time and prompt, with the
    picture whole and square.
    """
    base = bases[name]
    pipe, calls = base.load_pipeline(), []
    _, model = family_of(pipe)

    def keep(_: nn.Module, inputs: tuple, named: dict[str, Any], output: Any) -> None:
        named = dict(zip(("hidden_states",), inputs, strict=False)) | named
        given = inputs[0] if inputs else named["hidden_states"]
        time = named["timestep"] if "timestep" in named else inputs[1]
        calls.append((given, time, output[0]))

    model.register_forward_hook(keep, with_kwargs=True)
    prompts = ["a house", "two trees", "rain"]
    pipe(
        prompts,
        num_inference_steps=1,
        height=RESOLUTION,
        width=RESOLUTION,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        **({"use_resolution_binning": False} if name in ("pixart", "sana") else {}),
        **({"guidance_scale": 3.5} if base.family.name == "flux" else {"guidance_scale": 1.0}),
    )
    given, time, expected = calls[0]
    if base.family.name == "flux":
        given, time, expected = unpack(given, 4, 4), 1000 * time, unpack(expected, 4, 4)
    text = base.load_text(CPU).encode(prompts)
    denoiser = base.load_denoiser(CPU, resolution=RESOLUTION)
    with torch.no_grad():
        found = denoiser.predict(given, torch.as_tensor(time).expand(ROWS), text)
    assert found.shape == (ROWS, 4, 4, 4)
    torch.testing.assert_close(found, expected[:, :4], atol=1e-5, rtol=1e-5)
    shape = base.text
    assert text.states.shape == (ROWS, shape.length, shape.width)
    assert (None if text.pooled is None else text.pooled.shape[1]) == shape.pooled_width
    assert (text.mask is not None) == shape.takes_mask


@pytest.mark.parametrize("name", WRITERS)
def test_blocks_and_cross_attentions_run_in_the_order_they_are_named(
    bases: dict[str, Base], name: str
) -> None:
    base = bases[name]
    denoiser = base.load_denoiser(CPU, resolution=RESOLUTION, gradient_checkpointing=True)
    blocks, layers = denoiser.blocks(), denoiser.cross_attentions()
    ran: list[nn.Module] = []
    for module in [*blocks, *(layer for _, layer in layers)]:
        module.register_forward_hook(lambda module, *_: ran.append(module))
    with torch.no_grad():
        drawn = noisy(base)
        denoiser.predict(drawn.latents, drawn.timesteps, base.load_text(CPU).encode(["x"] * ROWS))
    assert blocks and [module for module in ran if module in blocks] == blocks
    assert [m for m in ran if m not in blocks] == [layer for _, layer in layers]
    assert bool(layers) == (name not in ("sd3", "flux", "schnell")), "there attention is joint"
    parts = [label.split(".")[0] for label, _ in layers]
    assert set(parts) <= {"down_blocks", "mid_block", "up_blocks", "transformer_blocks"}
    assert all(label.endswith("attn2") for label, _ in layers)


def test_a_denoiser_without_its_projection_takes_states_of_the_inner_width(
    bases: dict[str, Base],
) -> None:
    for base in bases.values():
        drawn, shape = noisy(base), base.text
        denoiser = base.load_denoiser(CPU, resolution=RESOLUTION, project_text=False)
        pooled = None if shape.pooled_width is None else torch.randn(ROWS, shape.pooled_width)
        mask = torch.ones(ROWS, 5) if shape.takes_mask else None
        text = Conditioning(torch.randn(ROWS, 5, shape.inner_width), pooled, mask)
        with torch.no_grad():
            assert denoiser.predict(drawn.latents, drawn.timesteps, text).shape == (ROWS, 4, 4, 4)


def test_the_model_itself_may_train_and_come_from_another_folder(
    bases: dict[str, Base], tmp_path: Path
) -> None:
    base = bases["sd"]
    changed = base.load_model()
    with torch.no_grad():
        changed.conv_in.bias += 1
    changed.save_pretrained(tmp_path / "alone")
    base.load_pipeline(denoiser=changed).save_pretrained(tmp_path / "pipeline")
    for folder in ("alone", "pipeline"):
        found = base.load_model(str(tmp_path / folder))
        assert torch.equal(found.conv_in.bias, changed.conv_in.bias)
    trained = changed.requires_grad_(True)
    denoiser = base.wrap_denoiser(trained, resolution=RESOLUTION)
    assert isinstance(denoiser, UNetDenoiser)
    drawn = noisy(base)
    text = Conditioning(torch.randn(ROWS, 5, WIDTH))
    denoiser.predict(drawn.latents, drawn.timesteps, text).square().mean().backward()
    assert trained.conv_in.bias.grad is not None


@pytest.mark.parametrize("name", FLOWS)
def test_an_adapter_learns_through_a_frozen_flow(bases: dict[str, Base], name: str) -> None:
    base = bases[name]
    shape, denoiser = base.text, base.load_denoiser(CPU, resolution=RESOLUTION)
    before = {name: tensor.clone() for name, tensor in denoiser.model.state_dict().items()}
    noising = base.schedule(device=CPU, caption_dropout=0.1)
    torch.manual_seed(0)
    adapter = nn.Linear(12, shape.width + (shape.pooled_width or 0))
    optimizer = torch.optim.Adam(adapter.parameters(), 0.05)
    prompts, losses = torch.randn(ROWS, 5, 12), []
    mask = torch.ones(ROWS, 5) if shape.takes_mask else None
    for _ in range(12):
        drawn = noising.draw(latents(), torch.Generator().manual_seed(1))
        states, pooled = adapter(prompts).tensor_split([shape.width], dim=-1)
        text = Conditioning(states, pooled.mean(dim=1) if shape.pooled_width else None, mask)
        predicted = denoiser.predict(drawn.latents, drawn.timesteps, text)
        loss = (predicted - drawn.target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.99 * losses[0]
    assert all(torch.equal(tensor, before[n]) for n, tensor in denoiser.model.state_dict().items())


def test_flow_matchings_times_and_target_are_those_of_diffusers_training_script(
    bases: dict[str, Base],
) -> None:
    """Of SD 3: u = sigmoid(normal), rounded to a grid of 1,000 times, of which the sampler's shift
    makes sigmas; noisy = (1 - sigma) x + sigma e, and the target is e - x.
    """
    process = bases["sd3"].process
    clean, noise = torch.randn(2, 999, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    times = process.spread_timesteps(999, 64)
    u = torch.special.ndtri((torch.arange(999) + 0.5) / 999).sigmoid()
    grid = FlowMatchEulerDiscreteScheduler(shift=3.0).sigmas.flip(0)  # times from 1 to 1,000
    torch.testing.assert_close(times / 1000, grid[(1000 * u).long()], atol=3e-3, rtol=0)
    noisy, target = process.add_noise(clean, noise, times)
    s = (times / 1000).view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, clean + s * target)
    torch.testing.assert_close(target, noise - clean)
    drawn = process.draw_timesteps([torch.Generator().manual_seed(0)] * 4000, 64)
    assert drawn.min() > 0 and drawn.max() < 1000
    assert drawn.median() == pytest.approx(750, abs=15), "the shift of 1/2 by 3"
    assert bases["sana"].process == process, "by a sampler of diffusion with flow sigmas"


def test_t5_reads_no_more_tokens_than_its_config_names(
    bases: dict[str, Base], tmp_path: Path
) -> None:
    """As of a small SD 3 that was trained on short prompts; stock pipelines pad to 256 tokens."""
    assert bases["sd3"].family.call_options(bases["sd3"].load_pipeline()) == {}
    short = write_sd3(tmp_path)
    path = tmp_path / "text_encoder_3" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_positions": 8}))
    base = Base.open(short)
    states = base.load_text(CPU).encode(["sun"]).states
    assert states.shape == (1, 16 + 8, 2 * WIDTH)
    assert base.family.call_options(base.load_pipeline()) == {"max_sequence_length": 8}
    assert base.family.call_options(base.load_pipeline(with_text=False)) == {}
    assert call_options(base.load_pipeline()) == {"max_sequence_length": 8}
    wrapper = SimpleNamespace(components=base.load_pipeline().components)
    assert call_options(wrapper) == {}, "what only answers as a pipeline does"


def test_fluxs_shift_grows_with_the_picture(bases: dict[str, Base]) -> None:
    """As its pipeline's: exp(mu) with mu of 0.5 for 256 tokens and 1.15 for 4,096; schnell's is 1
    for all.
    """
    for edge in (32, 128):
        middle = bases["schnell"].process.spread_timesteps(1, edge * edge)
        assert middle.item() == pytest.approx(500)
    process = bases["flux"].process
    for edge, mu in ((32, 0.5), (128, 1.15)):
        middle = process.spread_timesteps(1, edge * edge) / 1000
        assert middle.item() == pytest.approx(math.exp(mu) / (1 + math.exp(mu)))
    latent = torch.randn(2, 4, 6, 8)
    packed = FluxPipeline._pack_latents(latent, 2, 4, 6, 8)
    assert torch.equal(pack(latent), packed) and torch.equal(unpack(packed, 6, 8), latent)


@pytest.mark.parametrize(
    ("name", "num"), [("sd3", 4), ("flux", 4), ("schnell", 4), ("sana", 4), ("sd", 8)]
)
def test_features_are_the_pictures_whatever_the_number_of_text_tokens(
    bases: dict[str, Base], name: str, num: int
) -> None:
    base = bases[name]
    denoiser, shape, drawn = base.load_denoiser(CPU, resolution=RESOLUTION), base.text, noisy(base)
    shapes = []
    for length in (5, 9):
        found: list[Tensor] = []
        layers = [*denoiser.blocks(), *denoiser.attentions()]
        hooks = [
            layer.register_forward_hook(
                lambda module, _, output, kept=found: kept.append(
                    denoiser.picture_states(module, output)
                )
            )
            for layer in layers
        ]
        pooled = torch.randn(ROWS, shape.pooled_width) if shape.pooled_width else None
        mask = torch.ones(ROWS, length) if shape.takes_mask else None
        text = Conditioning(torch.randn(ROWS, length, shape.width), pooled, mask)
        with torch.no_grad():
            denoiser.predict(drawn.latents, drawn.timesteps, text)
        for hook in hooks:
            hook.remove()
        assert len(found) == len(layers) and len(denoiser.attentions()) == num
        shapes.append([states.shape for states in found])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "schedule FlowMatchEulerDiscrete"),
        ({"_class_name": "EDMEulerScheduler"}, "schedule EDMEulerScheduler, which this code does"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "by flow matching"),
        ({"prediction_type": "sample"}, "predicts 'sample'; known are epsilon and v_prediction"),
        ({"beta_schedule": "laplace"}, "beta_schedule 'laplace'; known are linear"),
        ({"rescale_betas_zero_snr": True}, "zero terminal SNR"),
    ],
)
def test_a_schedule_that_is_not_known_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    base = write_sd(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as raised:
        Base.open(base)
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "name", ["DDPM", "DDIM", "PNDM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep", "LMS"]
)
def test_a_samplers_config_gives_the_noise_that_it_was_trained_with(
    tmp_path: Path, name: str
) -> None:
    """Karras' spacing and the like are the sampler's own affair."""
    import diffusers

    sampler_class = getattr(diffusers, {"LMS": "LMSDiscrete"}.get(name, name) + "Scheduler")
    sampler = sampler_class(beta_start=0.001, beta_end=0.01, beta_schedule="scaled_linear")
    base = write_sd(tmp_path)
    sampler.save_pretrained(tmp_path / "scheduler")
    found = Base.open(base).process.alphas_cumprod
    torch.testing.assert_close(found, sampler.alphas_cumprod, atol=1e-6, rtol=1e-6)


def test_zero_terminal_snr_goes_with_the_velocity(tmp_path: Path) -> None:
    base = write_sd(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    changes = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    process = Base.open(base).process
    clean, noise = torch.randn(2, 1, 4, 4, 4)
    noised, target = process.add_noise(clean, noise, torch.tensor([999]))
    torch.testing.assert_close(noised, noise)
    torch.testing.assert_close(target, -clean)


def test_what_is_no_base_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no complete diffusers .* no model_index\.json"):
        Base.open(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder and no reachable hub entry named"):
        Base.open("/nowhere/at-all")
    base = write_sd(tmp_path / "sd")
    (tmp_path / "sd" / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"it has no vae/config\.json"):
        _ = Base.open(base).latents


def test_a_base_is_opened_once_in_a_process_wherever_it_is_called_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        write_sd(tmp_path / name / "sd")
    opened = []
    for name in ("here", "there", "here"):
        monkeypatch.chdir(tmp_path / name)
        opened.append(Base.open("sd"))
        assert opened[-1].location == str(tmp_path / name / "sd")
    assert opened[0] is opened[2] and opened[0] is not opened[1]


def test_a_pipeline_without_a_denoiser_that_is_known_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path, "StableCascadePriorPipeline")
    with pytest.raises(
        ValueError, match="is a StableCascadePriorPipeline, which has no part named"
    ):
        Base.open(str(tmp_path))


@pytest.mark.parametrize(
    ("pipeline", "denoiser", "reason"),
    [
        ("KolorsPipeline", {"addition_embed_type": "text_time", "encoder_hid_dim": 9}, "ChatGLM3"),
        ("QwenImagePipeline", {"_class_name": "QwenImageTransformer2DModel"}, "Qwen2.5-VL"),
        ("ZImagePipeline", {"_class_name": "ZImageTransformer2DModel"}, "Qwen3"),
        ("HunyuanDiTPipeline", {"_class_name": "HunyuanDiT2DModel"}, "mT5"),
        ("Flux2KleinPipeline", {"_class_name": "Flux2Transformer2DModel"}, "Qwen3"),
    ],
)
def test_a_base_that_is_multilingual_already_is_refused_with_that_reason(
    tmp_path: Path, pipeline: str, denoiser: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=f"needs no method for other languages.*{reason}"):
        find_family({"_class_name": "UNet2DConditionModel", **denoiser}, "a base")
    index = {"_class_name": pipeline, "text_encoder": ["its-own", "TextModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"needs no method.*{reason}") as raised:
        Base.open(str(tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("open_base", [Base.open, Base.open_known])
@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("Kwai-Kolors/Kolors-diffusers", "ChatGLM3"),
        ("Qwen/Qwen-Image", "Qwen2.5-VL"),
        ("Tongyi-MAI/Z-Image-Turbo", "Qwen3"),
        ("Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers", "mT5"),
        ("black-forest-labs/FLUX.2-dev", "Mistral"),
    ],
)
def test_such_a_base_of_the_hub_is_refused_by_its_name_without_a_network(
    open_base: Callable, base: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=f"{base} needs no method for other languages.*{reason}"):
        open_base(base)


def test_a_base_is_known_by_its_folder_or_its_name_and_others_are_not_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", None)
    sd = write_sd(tmp_path)
    assert Base.open_known(sd) is Base.open(sd)
    assert Base.open_known("black-forest-labs/FLUX.1-dev").family.name == "flux"
    assert Base.open_known("a/base") is None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("flux", {"_class_name": "DDIMScheduler"}, "DDIMScheduler, and its denoiser was trained"),
        ("sana", {"prediction_type": "epsilon"}, "predicts 'epsilon'; known is flow_prediction"),
        ("sana", {"_class_name": "SCMScheduler"}, "SCMScheduler, and its denoiser was trained"),
    ],
)
def test_a_flow_is_never_replaced_by_diffusion(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    base = WRITERS[name](tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        Base.open(base)


def test_a_denoiser_of_an_unknown_kind_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"AuraFlow.* of a kind that no family .*sana \(Sana"):
        find_family({"_class_name": "AuraFlowTransformer2DModel"}, "a base")


def test_a_denoiser_that_reads_more_than_noisy_latents_is_no_base_to_train_on(
    tmp_path: Path,
) -> None:
    base = write_flux(tmp_path)
    path = tmp_path / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "in_channels": 96}))
    with pytest.raises(ValueError, match="denoises 96 channels, and its latents have 4"):
        _ = Base.open(base).text
