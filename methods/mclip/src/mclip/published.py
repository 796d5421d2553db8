"""The authors' files as a model's folder: their projectors, alone or in a whole checkpoint of
fairseq, and their enhanced XLM-R.
"""

import re
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crosslingual.adapter.artifact import claim_artifact, load_strict, load_tensors, open_pickle
from crosslingual.frozen.encoders import known_length
from crosslingual.frozen.weights import differences, open_tokenizer
from mclip.artifact import model_config, save_model
from mclip.method import INITIAL_LOGIT_SCALE, TriKD
from mclip.settings import ImportSettings

# The projectors are `dim_proj.weight` (or `c_projector`) and the layers of `encoder_adapter` (or
# `x_projector`), behind any prefix. Layers are named as in fairseq, in torch's
# nn.TransformerEncoderLayer or in transformers' Roberta, three spellings of the same layer.
SPELLINGS = {
    "query": "self_attn.q_proj attention.self.query",
    "key": "self_attn.k_proj attention.self.key",
    "value": "self_attn.v_proj attention.self.value",
    "out": "self_attn.out_proj attention.output.dense",
    "attention_norm": "self_attn_layer_norm norm1 attention.output.LayerNorm",
    "up": "fc1 linear1 intermediate.dense",
    "down": "fc2 linear2 output.dense",
    "ffn_norm": "final_layer_norm norm2 output.LayerNorm",
}
OURS = {theirs: ours for ours, names in SPELLINGS.items() for theirs in names.split()}
JOINT = re.compile(r"self_attn\.in_proj_(weight|bias)")  # torch's query, key and value in one
LAYER = re.compile(r"(?:.*\.)?(?:encoder_adapter|x_projector)\.(?:layers?\.)?(\d+)\.(.+)")
FROZEN = re.compile(r"((?:.*\.)?encoder\.(?:xlmr|clip))\.|((?:.*\.)?version)$")
SENTENCE = re.compile(r"(?:.*\.)?sentence_encoder\.(.+)")
HEADS = re.compile(r"((?:.*\.)?(?:lm_head|classification_heads))\.|(.*(?:version|_float_tensor))$")
EMBEDDINGS = {
    "embed_tokens": "embeddings.word_embeddings",
    "embed_positions": "embeddings.position_embeddings",
    "layernorm_embedding": "embeddings.LayerNorm",
    "emb_layer_norm": "embeddings.LayerNorm",
}
TOKENIZERS = {768: "FacebookAI/xlm-roberta-base", 1024: "FacebookAI/xlm-roberta-large"}


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a published file in fp32, and fairseq's arguments: a state dict, or a whole
    checkpoint with `model`, `criterion` and `args`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds more than tensors, plain values and arguments.
    """
    if Path(path).suffix == ".safetensors":
        loaded = load_tensors(path)
    else:
        loaded = open_pickle(path, allowed=[Namespace])
    arguments: dict[str, Any] = {}
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        known = loaded.get("args") or (loaded.get("cfg") or {}).get("model") or {}
        arguments = vars(known) if isinstance(known, Namespace) else dict(known)
        loaded = {**loaded["model"], **(loaded.get("criterion") or {})}
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise ValueError(f"{path} is no state dict of tensors")
    return {n.removeprefix("module."): t.float() for n, t in loaded.items()}, arguments


def rename(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], Counter[str]]:
    """Published tensors by `TriKD`'s names, and what of a whole checkpoint is left out: its frozen
    models. Tensors that belong to no projector, or are there twice, keep their names. Where the
    file has no temperature, which only further training would use, it is the initial one.
    """
    renamed = {"logit_scale": torch.tensor([INITIAL_LOGIT_SCALE])}
    seen: set[str] = set()
    left: Counter[str] = Counter()
    for name, tensor in state.items():
        if frozen := FROZEN.match(name):
            left[frozen[1] or frozen[2]] += 1
            continue
        ours = _names(name)
        if not ours or seen.intersection(ours):
            ours = [f"{name} (twice)" if seen.intersection([*ours, name]) else name]
        seen.update(ours)
        parts = tensor.chunk(len(ours)) if len(ours) > 1 else [tensor]
        renamed |= dict(zip(ours, parts, strict=False))
    renamed["logit_scale"] = renamed["logit_scale"].reshape(-1)
    return renamed, left


def _size(state: dict[str, Tensor], *places: tuple[str, int]) -> int:
    """The size that the first tensor and axis of `places` tells; 1 if the file has none of them."""
    sizes = [state[n].shape[axis] for n, axis in places if n in state and state[n].ndim > axis]
    return next(iter(sizes), 1)


def trikd_shape(state: dict[str, Tensor], num_heads: int) -> dict[str, Any]:
    """The shape of projectors by `TriKD`'s names.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape, by name; or the heads do
            not divide the width.
    """
    numbers = {name.split(".")[2] for name in state if name.startswith("x_projector.layers.")}
    layer = "x_projector.layers.0"
    widths = ("clip_projector.weight", 0), (f"{layer}.up.weight", 1), (f"{layer}.down.weight", 0)
    shape = {
        "clip_width": _size(state, ("clip_projector.weight", 1)),
        "width": _size(state, *widths),
        "num_layers": max(len(numbers), 1),
        "num_heads": num_heads,  # no tensor tells them
        "ffn_width": _size(state, (f"{layer}.up.weight", 0), (f"{layer}.down.weight", 1)),
        "dropout": 0.3,
        "attention_dropout": 0.1,
    }
    with torch.device("meta"):
        own = TriKD({**shape, "num_heads": 1}).state_dict()
    if faults := differences(own, state):
        raise ValueError(
            f"these are not the published projectors; {faults}; clip_projector is dim_proj or "
            "c_projector in the published files, and x_projector is encoder_adapter or x_projector"
        )
    with torch.device("meta"):
        TriKD(shape)  # refuses heads that do not divide the width
    return shape


def _names(published: str) -> list[str]:
    """`TriKD`'s names of a published tensor: none, one, or three of a joint projection."""
    if published.endswith(("dim_proj.weight", "c_projector.weight")):
        return ["clip_projector.weight"]
    if published.split(".")[-1] in ("logit_scale", "it_logit_scale"):
        return ["logit_scale"]
    found = LAYER.fullmatch(published)
    if found is None:
        return []
    layer, rest = f"x_projector.layers.{found[1]}", found[2]
    if joint := JOINT.fullmatch(rest):
        return [f"{layer}.{part}.{joint[1]}" for part in ("query", "key", "value")]
    part, _, kind = rest.rpartition(".")
    return [f"{layer}.{OURS[part]}.{kind}"] if part in OURS else []


def import_published(settings: ImportSettings) -> Path:
    """`mclip import`: writes published projectors as config.json + model.safetensors. Where
    `text_encoder` is a file of fairseq, the folder holds the encoder too.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a pickle of more than tensors and arguments, tensors that are not the published
            ones, or an encoder of another width.
    """
    claim_artifact(settings.output_dir, "mclip").close()  # a refusal comes before the work
    tensors, arguments = read_checkpoint(settings.state_dict)
    state, left = rename(tensors)
    for name, wanted in {"encoder_normalize_before": False, "activation_fn": "gelu"}.items():
        if arguments.get(name, wanted) != wanted:
            raise ValueError(
                f"these projectors were trained with {name} {arguments[name]}, and mCLIP's layers "
                f"have {wanted}: they are not the published ones"
            )
    heads = settings.num_heads or arguments.get("encoder_attention_heads", 12)
    shape = trikd_shape(state, heads)
    with ExitStack() as until:
        source = None
        if Path(settings.text_encoder).is_file():
            source = until.enter_context(tempfile.TemporaryDirectory())
            left += write_encoder(settings.text_encoder, source, settings.tokenizer)
        else:
            known_length(settings.text_encoder, shape["width"])  # refuses another width
        config = model_config(settings, shape)
        is_bundled = source is not None
        folder = save_model(
            state, config, settings.output_dir, bundle_encoder=is_bundled, source=source
        )
    if left:
        named = ", ".join(f"{name} ({count})" for name, count in left.items())
        print(
            f"left out, since the model has these elsewhere or needs none: {named}", file=sys.stderr
        )
    print(folder)
    return folder


def write_encoder(path: str, folder: str, tokenizer: str | None) -> Counter[str]:
    """Writes fairseq's XLM-R (`mte_mclip.pt`, `model.pt`, or the one in a whole checkpoint) as a
    folder of transformers with its tokenizer; returns what is left out.

    Args:
        path: the file.
        folder: an empty folder.
        tokenizer: hub id or folder of XLM-R's; by the width if None.

    Raises:
        FileNotFoundError: there is no such file or tokenizer.
        ValueError: the file holds no XLM-R, or other tensors than an XLM-R has.
    """
    from transformers import XLMRobertaConfig, XLMRobertaModel

    state, arguments = read_checkpoint(path)
    renamed, left = rename_xlmr(state, path)
    size, width = renamed["embeddings.word_embeddings.weight"].shape
    numbers = {n.split(".")[2] for n in renamed if n.startswith("encoder.layer.")}
    config = XLMRobertaConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=renamed["encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=len(numbers),
        num_attention_heads=arguments.get("encoder_attention_heads") or width // 64,
        max_position_embeddings=renamed["embeddings.position_embeddings.weight"].shape[0],
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    with torch.device("meta"):
        own = XLMRobertaModel(config, add_pooling_layer=False).state_dict()
    if faults := differences(own, renamed):
        raise ValueError(f"{path} is not fairseq's XLM-R; {faults}")
    name = tokenizer or TOKENIZERS.get(width)
    if name is None:
        raise ValueError(
            f"no published XLM-R is {width} wide: name the folder of its tokenizer by --tokenizer"
        )
    opened = open_tokenizer(name)
    if len(opened) != size:
        raise ValueError(
            f"the tokenizer of {name} has {len(opened)} entries, and the XLM-R of {path} {size}: "
            "name its own by --tokenizer"
        )
    with torch.random.fork_rng(devices=[]):  # the caller's
        model = XLMRobertaModel(config, add_pooling_layer=False)
    load_strict(model, renamed)
    model.save_pretrained(folder)
    opened.save_pretrained(folder)
    return left


def rename_xlmr(state: dict[str, Tensor], path: str) -> tuple[dict[str, Tensor], Counter[str]]:
    """fairseq's tensors by the names of transformers' XLM-R, and what is left out. Tensors that no
    XLM-R has keep their names.

    Raises:
        ValueError: a tensor that tells the shape is missing.
    """
    is_whole = any(".xlmr." in name for name in state)
    spelled = {ours: names.split()[-1] for ours, names in SPELLINGS.items()}
    renamed: dict[str, Tensor] = {}
    left: Counter[str] = Counter()
    unknown: dict[str, Tensor] = {}
    for name, tensor in state.items():
        head = HEADS.match(name)
        found = SENTENCE.fullmatch(name)
        if head or (is_whole and ".xlmr." not in name):
            left[head[1] or head[2] if head else name.split(".")[0]] += 1
            continue
        part, _, kind = (found[1] if found else "").rpartition(".")
        layer = re.fullmatch(r"layers\.(\d+)\.(.+)", part)
        if part in EMBEDDINGS:
            ours = f"{EMBEDDINGS[part]}.{kind}"
        elif layer and layer[2] in OURS:
            ours = f"encoder.layer.{layer[1]}.{spelled[OURS[layer[2]]]}.{kind}"
        else:
            unknown[name] = tensor
            continue
        renamed[ours] = tensor
    needed = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
    needed += ("encoder.layer.0.intermediate.dense.weight",)
    missing = {name: torch.empty(0) for name in needed if name not in renamed}
    if missing.keys() & unknown.keys():
        raise ValueError(f"{path} has the names of transformers' XLM-R: give its folder instead")
    if missing:  # these tell the shape
        raise ValueError(f"{path} is not fairseq's XLM-R; {differences(missing, unknown)}")
    # XLM-R has one kind of segment, which fairseq leaves out
    segments = torch.zeros(1, renamed[needed[0]].shape[1])
    return {**renamed, **unknown, "embeddings.token_type_embeddings.weight": segments}, left
