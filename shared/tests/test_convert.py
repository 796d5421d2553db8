"""Published encoders, in their true layouts, give the states that their own library gives."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    AutoConfig,
    BertConfig,
    BertModel,
    ByT5Tokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GlmConfig,
    GlmForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
    XLMRobertaModel,
)

from crosslingual.cli.main import main
from crosslingual.frozen.convert import OPEN_CLIP_CONFIG, body_of, convert, rewrite
from crosslingual.frozen.encoders import (
    encoder_config,
    encoder_of,
    encoder_shape,
    load_multilingual_encoder,
)
from crosslingual.frozen.forms import FORMS
from crosslingual_worlds.testing.miniatures import fill, write_encoder

TEXTS = ["Haus", "ein rotes Haus"]
SIZE = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
CAUSAL = {**SIZE, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
VISION = {**SIZE, "image_size": 8, "patch_size": 4}
T5 = {"vocab_size": 400, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
Original = Callable[[Tensor, Tensor], Tensor]


def write_tokenizer(folder: Path, length: int = 128, **options: Any) -> None:
    """Bytes, between a start and an end."""
    pieces = ["<unk>", "<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    rules = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, []))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, model_max_length=length, **{**names, **options}
    )
    tokenizer.save_pretrained(folder)


def write_state(state: dict[str, Tensor], path: Path) -> None:
    """Safetensors, or a pickle as `torch.save` writes it."""
    state = {name: tensor.clone() for name, tensor in state.items()}
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)


def save(folder: Path, model: nn.Module) -> nn.Module:
    """A model as its own library saves it, with weights that differ from any initialisation."""
    fill(model).save_pretrained(folder)
    write_tokenizer(folder)
    return model


def dual(model_class: type, config: type, **text: Any) -> Callable[[Path], Original]:
    """A whole model of texts and pictures."""

    def write(folder: Path) -> Original:
        parts = {"text_config": {**SIZE, **text}, "vision_config": VISION, "projection_dim": 8}
        model = save(folder, model_class(config(**parts)))
        return lambda ids, mask: model.text_model(ids, attention_mask=mask).last_hidden_state

    return write


def siglip(model_class: type, config: type) -> Callable[[Path], Original]:
    """SigLIP attends to padding, and its tokenizer answers without a mask."""

    def write(folder: Path) -> Original:
        text = {**SIZE, "max_position_embeddings": 64, "projection_size": 16}
        model = save(folder, model_class(config(text_config=text, vision_config=VISION)))
        write_tokenizer(folder, 64, model_input_names=["input_ids"])
        return lambda ids, mask: model.text_model(ids).last_hidden_state

    return write


def body(folder: Path, model: nn.Module) -> nn.Module:
    """The encoder that M-CLIP and OpenCLIP name in their configs."""
    fill(model).save_pretrained(folder / "body")
    write_tokenizer(folder / "body")
    return model


def small_xlm_r(folder: Path) -> nn.Module:
    """An XLM-R with a pooler."""
    write_encoder(folder / "xlm-r", num_layers=2, max_positions=130)
    config = AutoConfig.from_pretrained(folder / "xlm-r", pad_token_id=3)
    return body(folder, XLMRobertaModel(config))


def open_clip(name: str, has_tokenizer: bool) -> Callable[[Path], Original]:
    """OpenCLIP's names by hand, since open_clip cannot be imported without torchvision."""

    def write(folder: Path) -> Original:
        tower = small_xlm_r(folder)
        state = {f"text.transformer.{k}": v for k, v in tower.state_dict().items()}
        state |= {"logit_scale": torch.ones(()), "text.proj.0.weight": torch.ones(8, 12)}
        state |= {"visual.conv1.weight": torch.ones(8, 3, 4, 4), "visual.proj": torch.ones(8, 8)}
        write_state(state, folder / name)
        text = {"hf_model_name": str(folder / "body"), "hf_pooler_type": "mean_pooler"}
        config = {"model_cfg": {"embed_dim": 8, "text_cfg": text}, "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        if has_tokenizer:
            write_tokenizer(folder)
        return lambda ids, mask: tower(ids, attention_mask=mask).last_hidden_state

    return write


def m_clip(make: Callable[[Path], nn.Module]) -> Callable[[Path], Original]:
    """M-CLIP's module holds `transformer` and `LinearTransformation`."""

    def write(folder: Path) -> Original:
        tower = make(folder)
        state = {f"transformer.{name}": value for name, value in tower.state_dict().items()}
        state |= {f"LinearTransformation.{n}": torch.ones(8) for n in ("weight", "bias")}
        state["transformer.embeddings.position_ids"] = torch.arange(9)
        write_state(state, folder / "pytorch_model.bin")
        config = {"model_type": "M-CLIP", "modelBase": str(folder / "body"), "numDims": 8}
        (folder / "config.json").write_text(json.dumps(config))
        write_tokenizer(folder)
        return lambda ids, mask: tower(ids, attention_mask=mask).last_hidden_state

    return write


def labse(folder: Path) -> nn.Module:
    """A BERT with a pooler, as LaBSE."""
    return body(folder, BertModel(BertConfig(**SIZE)))


def internvl(ending: str) -> Callable[[Path], Original]:
    """InternVL's QLLaMA: a LLaMA with cross-attention to pictures in every second layer."""

    def write(folder: Path) -> Original:
        config = LlamaConfig(**SIZE, pad_token_id=0)
        llama = fill(LlamaForCausalLM(config))
        state = {f"qllama.{name}": value for name, value in llama.state_dict().items()}
        state["qllama.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        for name in ("q_proj", "k_proj", "norm1"):
            state[f"qllama.model.layers.0.cross_attn.{name}.weight"] = torch.ones(16, 16)
        for name in ("vision_model.embeddings.class_embedding", "clip_projector.norm1_q.bias"):
            state[name] = torch.ones(4)
        state |= {name: torch.ones(4) for name in ("query_tokens", "text_projection")}
        names = sorted(state)
        stem = "pytorch_model" if ending == "bin" else "model"
        for n, part in enumerate((names[::2], names[1::2]), 1):
            path = folder / f"{stem}-0000{n}-of-00002.{ending}"
            write_state({name: state[name] for name in part}, path)
        whole = {"model_type": "internvl", "auto_map": {"AutoModel": "modeling.InternVLModel"}}
        whole["qllama_config"] = {**config.to_dict(), "cross_attention_frequency": 2}
        (folder / "config.json").write_text(json.dumps(whole))
        write_tokenizer(folder, pad_token=None)
        return lambda ids, mask: llama.model(ids, attention_mask=mask).last_hidden_state

    return write


def whole_t5(model: nn.Module, is_byt5: bool = False) -> Callable[[Path], Original]:
    """An encoder with its decoder, as the hub has it."""

    def write(folder: Path) -> Original:
        save(folder, model)
        if is_byt5:
            for path in folder.glob("tokenizer*"):
                path.unlink()
            ByT5Tokenizer().save_pretrained(folder)
        state = load_file(folder / "model.safetensors")
        state |= {
            f"{n}.embed_tokens.weight": state["shared.weight"] for n in ("encoder", "decoder")
        }
        state["lm_head.weight"] = torch.ones(400, 16)
        (folder / "model.safetensors").unlink()
        write_state(state, folder / "pytorch_model.bin")
        return lambda ids, mask: model.encoder(ids, attention_mask=mask).last_hidden_state

    return write


def old_altclip(folder: Path) -> Original:
    """AltCLIP's text half with the names of transformers 4."""
    original = dual(AltCLIPModel, AltCLIPConfig, project_dim=16)(folder)
    state = load_file(folder / "model.safetensors")
    state = {k.removeprefix("text_model."): v for k, v in state.items() if "text_model." in k}
    assert any("roberta.encoder.layer.0" in name for name in state)
    write_state(state, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())["text_config"]
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "altclip_text_model"}))
    return original


def pickled(name: str) -> Callable[[Path], Original]:
    """A plain XLM-R in a file of another name."""

    def write(folder: Path) -> Original:
        model = small_xlm_r(folder)
        shutil.copytree(folder / "body", folder, dirs_exist_ok=True)
        (folder / "model.safetensors").unlink()
        write_state({f"roberta.{k}": v for k, v in model.state_dict().items()}, folder / name)
        return lambda ids, mask: model(ids, attention_mask=mask).last_hidden_state

    return write


def in_fp16(write: Callable[[Path], Original]) -> Callable[[Path], Original]:
    """Files of the variant alone."""

    def make(folder: Path) -> Original:
        original = write(folder)
        (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
        return original

    return make


def gemma3(folder: Path) -> Original:
    """A Gemma 3 that reads pictures, in the names of the hub."""
    text = {**CAUSAL, "sliding_window": 4}
    config = Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4)
    model = save(folder, Gemma3ForConditionalGeneration(config))
    return lambda ids, mask: model.model.language_model(ids, attention_mask=mask).last_hidden_state


CONVERTED: dict[str, tuple[Callable[[Path], Original], int]] = {
    "chinese_clip": (dual(ChineseCLIPModel, ChineseCLIPConfig), 52),
    "altclip": (dual(AltCLIPModel, AltCLIPConfig, project_dim=16), 77),
    "altclip, old names": (old_altclip, 128),
    "clip": (dual(CLIPModel, CLIPConfig, max_position_embeddings=77), 77),
    "siglip": (siglip(SiglipModel, SiglipConfig), 64),
    "siglip2": (siglip(Siglip2Model, Siglip2Config), 64),
    "open_clip safetensors": (open_clip("open_clip_model.safetensors", False), 77),
    "open_clip bin": (open_clip("open_clip_pytorch_model.bin", True), 77),
    "m-clip xlm-r": (m_clip(small_xlm_r), 128),
    "m-clip labse": (m_clip(labse), 128),
    "internvl bin": (internvl("bin"), 80),
    "internvl safetensors": (internvl("safetensors"), 80),
    "mt5": (whole_t5(MT5ForConditionalGeneration(MT5Config(**T5))), 128),
    "umt5": (whole_t5(UMT5ForConditionalGeneration(UMT5Config(**T5))), 128),
    "byt5": (whole_t5(T5ForConditionalGeneration(T5Config(**T5)), is_byt5=True), int(1e30)),
    "xlm-r bin": (pickled("pytorch_model.bin"), 128),
    "clip fp16": (in_fp16(dual(CLIPModel, CLIPConfig, max_position_embeddings=77)), 77),
    "gemma3": (gemma3, 128),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_encoder_gives_the_originals_states(name: str, tmp_path: Path) -> None:
    write, length = CONVERTED[name]
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    original = write(source)
    with pytest.raises(ValueError, match=rf"`crosslingual encoder convert --input {source} "):
        load_multilingual_encoder(str(source))
    words = ["--input", str(source), "--output_dir", str(target)]
    assert main(["encoder", "convert", *words]) == 0
    encoder = load_multilingual_encoder(str(target))
    assert min(encoder.tokenizer.model_max_length, 10**9) == min(length, 10**9)
    assert encoder.max_length == min(77, length)
    check_states(encoder, original)
    assert f"Text encoder of {source}" in (target / "README.md").read_text()


def check_states(encoder: Any, original: Original) -> None:
    """Ours equal the original's, whether padded to the limit, to the longest or not at all."""
    ids, mask = encoder.tokenize(TEXTS)
    states, given = encoder.encode(TEXTS)
    assert ids.shape == (2, encoder.max_length) and torch.equal(mask, given)
    assert mask[:, 0].all() and not mask[:, -1].any()
    assert torch.equal(mask, mask.sort(dim=1, descending=True).values)  # padding on the right
    with torch.no_grad():
        wanted = original(ids, mask)[mask.bool()]
    torch.testing.assert_close(states[mask.bool()], wanted, atol=1e-5, rtol=0)
    packed = encoder.encode_packed(TEXTS)
    torch.testing.assert_close(packed.values, wanted, atol=1e-5, rtol=0)
    rebuilt = AutoConfig.for_model(**encoder.model.config.to_dict())
    drop_in = encoder_of(rebuilt)  # as the drop-in builds it
    drop_in.load_state_dict(encoder.model.state_dict())
    again = drop_in.eval()(ids, attention_mask=mask).last_hidden_state[mask.bool()]
    torch.testing.assert_close(again, wanted, atol=1e-5, rtol=0)


READ: dict[str, Callable[[], nn.Module]] = {
    "gemma3_text": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**CAUSAL, sliding_window=4)),
    "modernbert": lambda: ModernBertForMaskedLM(
        ModernBertConfig(**SIZE, **dict.fromkeys(SPECIAL, 1), local_attention=4)
    ),
    "distilbert": lambda: DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=300, dim=16, hidden_dim=16, n_layers=2, n_heads=2)
    ),
    "glm": lambda: GlmForCausalLM(GlmConfig(**CAUSAL)),
    "qwen3-embedding": lambda: Qwen3Model(Qwen3Config(**CAUSAL)),
}
SPECIAL = "pad_token_id bos_token_id eos_token_id cls_token_id sep_token_id".split()


@pytest.mark.parametrize("name", READ)
def test_encoders_of_today_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    model = save(tmp_path, READ[name]())
    if name == "glm":
        in_fp16(lambda _: None)(tmp_path)
    write_tokenizer(tmp_path, padding_side="left")  # as Qwen3-Embedding's and GLM's
    trunk = getattr(model, model.base_model_prefix, model)
    encoder = load_multilingual_encoder(str(tmp_path))
    assert encoder.width == 16
    check_states(encoder, lambda ids, mask: trunk(ids, attention_mask=mask).last_hidden_state)


def broken(write: Callable[[Path], Original], **changes: Tensor | None) -> Callable[[Path], None]:
    """A model whose state dict lacks a tensor, or has another."""

    def make(folder: Path) -> None:
        write(folder)
        path = next(folder.glob("model*.safetensors"))
        state = {**load_file(path), **changes}
        write_state({name: value for name, value in state.items() if value is not None}, path)

    return make


def unknown(folder: Path) -> None:
    """A model of a type that nobody knows, with names like a CLIP's."""
    dual(CLIPModel, CLIPConfig)(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "evil"}))
    broken(lambda _: None, **{"mystery.weight": torch.ones(2)})(folder)


class Evil:
    """What a pickle of code holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('the code of a pickle ran')",))


def with_code(folder: Path) -> None:
    """A pickle that is not of tensors alone."""
    pickled("pytorch_model.bin")(folder)
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")


def half(folder: Path) -> None:
    """The first of two files."""
    internvl("bin")(folder)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()


TABLE = "text_model.embeddings.word_embeddings.weight"
NORM = "text_model.encoder.layer.1.output.LayerNorm.weight"
CHINESE = dual(ChineseCLIPModel, ChineseCLIPConfig)
FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (
        broken(CHINESE, **{NORM: None}),
        "nearest to a Chinese-CLIP, .* missing: encoder.*",
    ),
    "unexpected": (broken(CHINESE, mystery=torch.ones(2)), "unexpected: mystery"),
    "shape": (
        broken(CHINESE, **{TABLE: torch.ones(9, 16)}),
        r"of another shape: \S+ is \(9, 16\), not \(300, 16\)",
    ),
    "unknown": (
        unknown,
        r"no known layout: the nearest is .*or a CLIP or.*, where 1 of \d+ tensors are not "
        "expected, such as mystery.weight; known are a Chinese-CLIP, .*",
    ),
    "code": (with_code, "weights of .*pytorch_model.bin cannot be read .*"),
    "half": (half, "1 of 2 files such as pytorch_model-00001-of-00002.bin; copy it again"),
    "variant": (pickled("pytorch_model.fp16.bin"), "has no weights; give --variant fp16"),
    "empty": (lambda folder: None, "has no weights; give another model"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_differs_is_one_line_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    FAULTS[name][0](source)
    words = ["--input", str(source), "--output_dir", str(target)]
    capsys.readouterr()
    assert main(["encoder", "convert", *words]) == 2
    assert re.fullmatch(rf"error: .*{FAULTS[name][1]}.*\n", capsys.readouterr().err)
    assert not target.exists()


def test_a_config_names_an_encoder_before_it_is_converted() -> None:
    name = "encoders/OFA-Sys/chinese-clip-vit-huge-patch14"
    assert encoder_shape(name) == (1024, 52)
    command = f"--input {name.removeprefix('encoders/')} --output_dir {name}`"
    with pytest.raises(FileNotFoundError, match=f"make it by `crosslingual encoder .* {command}"):
        load_multilingual_encoder(name)


def test_a_hub_entry_is_converted_from_the_files_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CHINESE(tmp_path)
    (tmp_path / "README.md").write_text("not needed")
    asked = []
    patch = monkeypatch.setattr
    patch("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    patch("huggingface_hub.list_repo_files", lambda name, revision: os.listdir(tmp_path))
    patch("huggingface_hub.hf_hub_download", lambda name, file, **_: str(tmp_path / file))
    patch("huggingface_hub.snapshot_download", lambda name, **o: asked.append(o) or str(tmp_path))
    with pytest.raises(
        ValueError, match="--input someone/clip --output_dir encoders/someone/clip`"
    ):
        load_multilingual_encoder("someone/clip")
    made = convert("someone/clip", tmp_path / "encoder", revision="abc")
    check_states(load_multilingual_encoder(str(made.folder)), original)
    files = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert asked == [{"revision": "abc", "allow_patterns": sorted(files | {OPEN_CLIP_CONFIG})}]


def whole_on_meta(kind: str) -> tuple[Any, dict[str, Tensor]]:
    """A published encoder's config, and the names and shapes of the whole model at full size."""
    name = {"chinese_clip": "OFA-Sys/chinese-clip-vit-huge-patch14"}
    name |= {"internvl": "OpenGVLab/InternVL-14B-224px"}
    config = encoder_config(f"encoders/{name[kind]}")
    with torch.device("meta"):
        if kind == "internvl":
            llama = LlamaForCausalLM(config)
            return config, {f"qllama.{n}": t for n, t in llama.state_dict().items()}
        whole = ChineseCLIPConfig(text_config={**config.to_dict(), "model_type": "x"})
        return config, ChineseCLIPModel(whole).state_dict()


@pytest.mark.parametrize("kind", ["chinese_clip", "internvl"])
def test_published_sizes_have_the_names_that_are_taken(kind: str) -> None:
    config, state = whole_on_meta(kind)
    model, left = rewrite(FORMS[kind], config, state, kind)
    with torch.device("meta"):
        assert model.state_dict().keys() == encoder_of(config).state_dict().keys() and left


@pytest.mark.parametrize(("width", "size"), [(768, "base"), (1024, "large")])
def test_an_open_clip_without_a_config_is_known_by_its_width(
    width: int, size: str, tmp_path: Path
) -> None:
    """As LAION's hub entries are."""
    table = {"text.transformer.embeddings.word_embeddings.weight": torch.empty(9, width)}
    body = (f"FacebookAI/xlm-roberta-{size}", 77)
    assert body_of(FORMS["open_clip"], {}, tmp_path, table) == body
