"""What ComfyUI asks of the nodes, and that their conditioning is what diffusers' pipelines give."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import altdiffusion
import altdiffusion.artifact
import altdiffusion.settings
import altdiffusion.text.encoder
import iap
import iap.artifact
import iap.encoder
import iap.method
import iap.settings
import mulan
import mulan.artifact
import mulan.method
import mulan.settings
import pea
import pea.artifact
import pea.method
import pea.settings
from crosslingual.adapter.pipeline import encode_prompts, load_encoder
from crosslingual.frozen.base import Base
from crosslingual_comfyui.bases import BASES
from crosslingual_comfyui.conditioning import widths
from crosslingual_comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from crosslingual_worlds.testing.host import unchanged_host
from crosslingual_worlds.testing.miniatures import (
    fill,
    write_encoder,
    write_flux,
    write_sd,
    write_sd3,
    write_sdxl,
)

PACK = Path(__file__).parents[1]
PROMPT, NEGATIVE = "ein haus", "grün"
WRITERS: dict[str, Callable[[Path], str]] = {
    "SD 1.x": write_sd,
    "SD 2.x": write_sd,
    "SDXL": write_sdxl,
    "SD 3": write_sd3,
    "FLUX": write_flux,
}
METHODS = [
    ("pea", "SD 1.x"),
    ("pea", "SDXL"),
    ("pea", "SD 3"),
    ("pea", "FLUX"),
    ("mulan", "SD 1.x"),
    ("mulan", "SDXL"),
    ("mulan", "SD 3"),
    ("mulan", "FLUX"),
    ("iap", "SD 1.x"),
    ("iap", "SDXL"),
    ("altdiffusion", "SD 1.x"),
    ("altdiffusion", "SD 2.x"),
]
EXTRAS = {
    "SDXL": {"pooled_output", "width", "height"},
    "SD 3": {"pooled_output"},
    "FLUX": {"pooled_output", "guidance"},
}
"""The keys of the conditioning, by base: none for the others."""
Export = Callable[[str, str], str]
load = NODE_CLASS_MAPPINGS["CrosslingualLoadAdapter"]
text_encode = NODE_CLASS_MAPPINGS["CrosslingualTextEncode"]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Miniatures whose denoisers take text states of the published widths."""
    folders = {}
    for name, write in WRITERS.items():
        base = Base.open(write(tmp_path_factory.mktemp("base")))
        family, width = base.family, widths(BASES[name])
        fields = {"sd": ["cross_attention_dim"], "sdxl": ["cross_attention_dim"]}.get(
            family.name, ["joint_attention_dim", "pooled_projection_dim"]
        )
        changes: dict[str, Any] = dict(zip(fields, width, strict=False))
        if family.name == "sdxl":
            changes["projection_class_embeddings_input_dim"] = width[1] + 6 * 4
        model_class = getattr(diffusers, family.model_class)
        model = model_class.from_config({**base.config(family.part), **changes})
        fill(model).save_pretrained(Path(base.id) / family.part)
        folders[name] = base.id
    return folders


def write_pea(folder: Path, base: str, encoder: str, **changes: Any) -> str:
    settings = pea.settings.TrainSettings(
        pretrained_model_name_or_path=base, text_encoder=encoder, languages=["de"], hidden_width=8
    )
    config = pea.artifact.adapter_config(settings) | changes
    pea.artifact.save_adapter(pea.method.build_adapter(config).state_dict(), config, folder)
    return str(folder)


def write_mulan(folder: Path, base: str, encoder: str) -> str:
    text = Base.open(base).text
    has_parts = len(text.part_widths) > 1
    settings = mulan.settings.TrainSettings(
        pretrained_model_name_or_path=base,
        text_encoder=encoder,
        languages=["en"],
        num_queries=20,
        num_heads=2,
        query_width=16 if text.pooled_width and not has_parts else None,
    )
    config = mulan.artifact.adapter_config(settings)
    if has_parts:  # one narrow adapter in the place of SDXL's two, which are 43 million weights
        config |= {"split_widths": None, "query_width": 16}
    mulan.artifact.save_adapter(mulan.method.build_adapter(config).state_dict(), config, folder)
    return str(folder)


def write_iap(folder: Path, base: str, encoder: str) -> str:
    settings = iap.settings.TrainSettings(
        pretrained_model_name_or_path=base, text_encoder=encoder, target_language=["de"]
    )
    config = iap.artifact.encoder_config(settings)
    state = iap.encoder.start_encoder(config["altclip"], encoder, None).state_dict()
    if config["pooled_width"]:
        head = iap.method.build_adapter(config).state_dict()
        state |= {f"pooled.{name}": tensor for name, tensor in head.items()}
    return str(iap.artifact.save_encoder(state, config, folder))


def write_altdiffusion(folder: Path, base: str, encoder: str) -> str:
    width = Base.open(base).text.width
    student = altdiffusion.text.encoder.build_student(encoder, width)
    altdiffusion.text.encoder.save_text_encoder(student, folder / "student")
    settings = altdiffusion.settings.TrainSettings(
        pretrained_model_name_or_path=base,
        text_encoder=str(folder / "student"),
        languages=["de"],
    )
    pipe = altdiffusion.artifact.build_pipeline(settings, Base.open(base).load_model())
    config = altdiffusion.artifact.pipeline_config(settings)
    return str(altdiffusion.artifact.save_pipeline(pipe, config, folder / "exported"))


@pytest.fixture(scope="session")
def exported(
    bases: dict[str, str], encoder: str, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    """Writes an export with random weights, of a method for a base, once."""

    @cache
    def write(method: str, base: str) -> str:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("adapters") / "it"
        return globals()[f"write_{method}"](folder, bases[base], encoder)

    return write


def conditioning(adapter: str, base: str, text: str, role: str = "positive", **options: Any) -> Any:
    """As ComfyUI runs the nodes: in inference mode, each input by its name."""
    with torch.inference_mode():
        (loaded,) = load().load(adapter=adapter, base=base, device="cpu", **options)
        return text_encode().encode(adapter=loaded, text=text, role=role)


def diffusers_answer(method: str, adapter: str, base: str, **prompts: Any) -> list[Tensor]:
    """What a whole stock pipeline with the adapter attached hands to its denoiser."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(base, trust_remote_code=False)
    sys.modules[method].attach(pipe, adapter)
    if "FluxPipeline" in type(pipe).__name__:
        return [*pipe.encode_prompt(prompts["negative_prompt"] or prompts["prompt"], None)[:2]]
    others = {"prompt_2": None, "prompt_3": None} if "Diffusion3" in type(pipe).__name__ else {}
    options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    answer = pipe.encode_prompt(**prompts, **options, **others)
    return [*answer[prompts["negative_prompt"] is not None :: 2]]


@pytest.mark.parametrize("role", ["positive", "negative"])
@pytest.mark.parametrize(("method", "base"), METHODS)
def test_the_conditioning_is_what_diffusers_gives_the_denoiser(
    exported: Export, bases: dict[str, str], method: str, base: str, role: str
) -> None:
    adapter, text = exported(method, base), {"positive": PROMPT, "negative": NEGATIVE}[role]
    [[states, extras]], cut = conditioning(adapter, base, text, role)
    prompts = {"prompt": PROMPT, "negative_prompt": NEGATIVE if role == "negative" else None}
    expected = diffusers_answer(method, adapter, bases[base], **prompts)
    torch.testing.assert_close(states, expected[0], atol=1e-4, rtol=0)
    width, pooled_width = widths(BASES[base])
    assert states.shape == (1, 20 if method == "mulan" else 16, width)
    assert states.dtype == torch.float32 and states.device.type == "cpu" and cut == ""
    assert set(extras) == EXTRAS.get(base, set())
    if pooled_width:
        torch.testing.assert_close(extras["pooled_output"], expected[1], atol=1e-4, rtol=0)
        assert extras["pooled_output"].shape == (1, pooled_width)


def test_it_is_what_encoder_and_adapter_give_without_any_pipeline(exported: Export) -> None:
    [[states, extras]], _ = conditioning(exported("pea", "SDXL"), "SDXL", PROMPT)
    adapter, config = pea.artifact.load_adapter(exported("pea", "SDXL"))
    expected = encode_prompts(load_encoder(config), adapter, [PROMPT], None, config)
    torch.testing.assert_close(states, expected["prompt_embeds"])
    torch.testing.assert_close(extras["pooled_output"], expected["pooled_prompt_embeds"])


def test_equal_prompts_give_equal_conditioning_and_others_another(exported: Export) -> None:
    first, again, other = (
        conditioning(exported("pea", "SD 1.x"), "SD 1.x", text)[0][0][0]
        for text in (PROMPT, PROMPT, "maison")
    )
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_an_empty_negative_prompt_is_zeros_where_the_adapter_was_trained_so(
    exported: Export, bases: dict[str, str], encoder: str, tmp_path: Path
) -> None:
    zeros = write_pea(tmp_path / "zeros", bases["SDXL"], encoder, null_policy="zeros")
    [[states, extras]], _ = conditioning(zeros, "SDXL", " ", "negative")
    assert not states.any() and not extras["pooled_output"].any()
    for folder, role in ((zeros, "positive"), (exported("pea", "SDXL"), "negative")):
        [[states, extras]], _ = conditioning(folder, "SDXL", "", role)
        assert states.any() and extras["pooled_output"].any()


@pytest.mark.parametrize(
    ("base", "inputs"), [("FLUX", {"guidance": 2.0}), ("SDXL", {"width": 640, "height": 896})]
)
def test_flux_reads_the_guidance_and_sdxl_the_size(
    exported: Export, base: str, inputs: dict[str, Any]
) -> None:
    (loaded,) = load().load(exported("pea", base), base, "cpu")
    [[_, extras]], _ = text_encode().encode(loaded, PROMPT, "positive", **inputs)
    assert {name: extras[name] for name in inputs} == inputs


@pytest.mark.filterwarnings("error:.*prompts are cut:UserWarning")  # said by the node alone
@pytest.mark.parametrize("base", WRITERS)
def test_what_is_cut_of_a_prompt_is_said_once(
    exported: Export, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    [[states, _]], cut = conditioning(exported("pea", base), base, "ein haus am see mit garten")
    assert states.shape[1] == 16
    assert "is longer than the 16 tokens that are read" in cut and "\n" not in cut
    assert [record.getMessage() for record in caplog.records] == [cut]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_near_full_precision(exported: Export, dtype: str) -> None:
    full, half = (
        conditioning(exported("pea", "SD 3"), "SD 3", PROMPT, dtype=name)[0][0][0]
        for name in ("fp32", dtype)
    )
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.02 * full.norm()


def test_weights_wait_on_the_cpu_and_nothing_of_the_host_changes(exported: Export) -> None:
    (loaded,) = load().load(exported("pea", "SDXL"), "SDXL")
    with unchanged_host():
        (loaded,) = load().load(exported("pea", "SDXL"), "SDXL")
        text_encode().encode(loaded, PROMPT, "positive")
    assert {p.device.type for p in loaded.pipe.text_encoder_2.parameters()} == {"cpu"}
    assert not any(p.requires_grad for p in loaded.pipe.text_encoder_2.parameters())


@pytest.mark.parametrize("is_there", [True, False])
def test_prompts_are_encoded_on_the_gpu_that_the_machine_has(
    exported: Export, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """A torch that is built for a GPU names it on machines without one too."""
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr("torch.accelerator.is_available", lambda: is_there)
    for device, expected in (("default", "cuda" if is_there else "cpu"), ("cpu", "cpu")):
        (loaded,) = load().load(exported("pea", "SD 1.x"), "SD 1.x", device)
        assert loaded.device.type == expected


@pytest.mark.parametrize(
    ("adapter", "base", "reason"),
    [
        ("", "SDXL", "name an adapter"),
        ("no/such/adapter", "SDXL", "no adapter no/such/adapter"),
        (("pea", "SD 1.x"), "SDXL", "of width 768 without a pooled vector, and SDXL takes states "),
        (("pea", "SD 3"), "FLUX", "with a pooled vector of 768: choose SD 3"),
        (("mulan", "SD 1.x"), "SD 2.x", "choose SD 1.x, or name an adapter that was made for SD 2"),
        (("pea", "SD 1.x"), "SD 9", "there is no base 'SD 9'"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_runs(
    exported: Export, adapter: Any, base: str, reason: str
) -> None:
    said = load.VALIDATE_INPUTS(adapter if isinstance(adapter, str) else exported(*adapter), base)
    assert reason in said and "\n" not in said
    assert load.VALIDATE_INPUTS(None, base) is True


def test_what_only_loading_shows_is_one_sentence_too(
    exported: Export, bases: dict[str, str], encoder: str, tmp_path: Path
) -> None:
    moved = str(tmp_path / "moved")
    gone = write_pea(tmp_path / "gone", bases["SD 1.x"], encoder, text_encoder=moved)
    assert load.VALIDATE_INPUTS(gone, "SD 1.x") is True
    with pytest.raises(FileNotFoundError, match="moved") as raised:
        load().load(gone, "SD 1.x")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="takes width 1024 without a pooled vector"):
        load().load(exported("altdiffusion", "SD 1.x"), "SD 2.x")
    (loaded,) = load().load(exported("pea", "SD 1.x"), "SD 1.x")
    with pytest.raises(ValueError, match="half a character"):
        text_encode().encode(loaded, "\ud800", "positive")


def test_an_adapter_of_no_use_here_is_refused(
    bases: dict[str, str], encoder: str, tmp_path: Path
) -> None:
    unknown = write_pea(tmp_path / "unknown", bases["SD 1.x"], encoder, method="none_such")
    assert "pip install -e methods/none_such" in load.VALIDATE_INPUTS(unknown, "SD 1.x")
    layer = write_pea(tmp_path / "layer", bases["SDXL"], encoder, add_embedding=[2816, 1280])
    assert "changes a layer of SDXL" in load.VALIDATE_INPUTS(layer, "SDXL")
    odd = write_pea(tmp_path / "odd", bases["SD 1.x"], encoder, width=640)
    assert "no base of this node takes" in load.VALIDATE_INPUTS(odd, "SD 1.x")


def test_comfyui_loads_again_what_is_exported_again(
    bases: dict[str, str], encoder: str, tmp_path: Path
) -> None:
    folder = write_pea(tmp_path / "it", bases["SD 1.x"], encoder)
    before = load.IS_CHANGED(folder, base="SD 1.x")
    assert load.IS_CHANGED(folder, base="SDXL", device="cpu") == before
    write_pea(tmp_path / "it", bases["SD 1.x"], encoder, guidance_scale=3.0)
    assert load.IS_CHANGED(folder, base="SD 1.x") != before
    named_by_a_node = load.IS_CHANGED(None, base="SD 1.x")
    assert named_by_a_node != named_by_a_node


def test_an_adapter_in_comfyuis_models_is_found_by_its_name(
    exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crosslingual_comfyui.nodes.MODELS", tmp_path)
    (tmp_path / "mine").symlink_to(exported("pea", "SDXL"))
    assert load.VALIDATE_INPUTS("mine", "SDXL") is True


IMPORT = """
import importlib.util, sys
sys.path[:] = [path for path in sys.path if not path.endswith("comfyui/src")]
spec = importlib.util.spec_from_file_location("pack", sys.argv[1] + "/__init__.py")
pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
for node in pack.NODE_CLASS_MAPPINGS.values():
    assert node.INPUT_TYPES()["required"] and callable(getattr(node, node.FUNCTION))
print(*{name.split(".")[0] for name in sys.modules} & {"comfy", "nodes", "torch", "diffusers"})
"""


def test_the_folder_alone_is_the_pack_and_it_imports_nothing_heavy(tmp_path: Path) -> None:
    copy = tmp_path / "custom_nodes" / "pack"
    copy.parent.mkdir()
    copy.symlink_to(PACK)
    command = [sys.executable, "-c", IMPORT, str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("path", sorted(PACK.glob("workflows/*.json")), ids=lambda p: p.name)
def test_a_workflow_gives_our_nodes_what_they_take(path: Path) -> None:
    workflow = json.loads(path.read_text())
    ours = [node for node in workflow.values() if node["class_type"] in NODE_CLASS_MAPPINGS]
    assert {node["class_type"] for node in ours} == set(NODE_DISPLAY_NAME_MAPPINGS)
    for node in ours:
        types = NODE_CLASS_MAPPINGS[node["class_type"]].INPUT_TYPES()
        known = types["required"] | types["optional"]
        assert set(types["required"]) <= set(node["inputs"]) <= set(known)
        for name, value in node["inputs"].items():
            if isinstance(value, list):  # another node's output, by number
                source = NODE_CLASS_MAPPINGS[workflow[value[0]]["class_type"]]
                assert source.RETURN_TYPES[value[1]] == known[name][0]
            elif isinstance(known[name][0], list):
                assert value in known[name][0]


def test_the_manager_installs_what_the_package_needs_from_the_index() -> None:
    project = tomllib.loads((PACK / "pyproject.toml").read_text())
    ours = project["project"]["dependencies"]
    listed = (PACK / "requirements.txt").read_text().splitlines()
    assert [line for line in listed if not line.startswith("#")] == [
        line for line in ours if "@" not in line
    ]
    assert {"PublisherId", "DisplayName"} <= set(project["tool"]["comfy"])
