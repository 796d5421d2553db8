"""Published text encoders: the class that reads each kind, and layouts of models that hold one.

`load_multilingual_encoder` reads the kinds in `CLASSES` as they are. `crosslingual encoder convert`
takes the encoder, once, out of a model in `FORMS` or without plain safetensors. A new layout is a
line in `FORMS`.
"""

import json
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosslingual.frozen.weights import HEADS, WEIGHTS_FILE, only_variant, resolve

CLASSES = {
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
    "xlm-roberta-xl": "XLMRobertaXLModel",
    "bert": "BertModel",
    "distilbert": "DistilBertModel",
    "modernbert": "ModernBertModel",
    "altclip_text_model": "AltCLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "siglip_text_model": "SiglipTextModel",
    "siglip2_text_model": "Siglip2TextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "llama": "LlamaModel",
    "mistral": "MistralModel",
    "qwen2": "Qwen2Model",
    "qwen3": "Qwen3Model",
    "gemma": "GemmaModel",
    "gemma2": "Gemma2Model",
    "gemma3_text": "Gemma3TextModel",
    "glm": "GlmModel",
    "glm4": "Glm4Model",
}
"""The class of transformers that reads an encoder, by the model type in its config."""

POOLED = frozenset(("RobertaModel", "XLMRobertaModel", "XLMRobertaXLModel", "BertModel"))
"""Classes with a pooler, which token states do not pass."""

READS_PADDING = frozenset(("siglip_text_model", "siglip2_text_model"))
"""Model types that were trained without a mask, on texts padded to one length."""


@dataclass(frozen=True)
class Form:
    """The layout of a published model that holds a text encoder.

    Attributes:
        title: how errors and model cards call such a model.
        part: where its config describes the encoder: an entry that holds the encoder's config, or
            the name of the model whose config that is; empty where the whole config does.
        prefix: pattern of what stands before the names of the encoder's tensors.
        others: pattern of the names of tensors that belong to other parts of the model.
        encoder: model type of the encoder, where its config does not say so.
        max_length: tokens of a text in the model's training, start and end included; None for the
            tokenizer's own limit.
        tokenizer: options that its authors give the tokenizer.
    """

    title: str
    part: str
    prefix: str
    others: str
    encoder: str | None = None
    max_length: int | None = None
    tokenizer: tuple[tuple[str, Any], ...] = ()


_OF_CLIP = r"vision_model\.|visual_projection\.|text_projection\.|logit_(scale|bias)$"
_OF_OPEN_CLIP = r"visual\.|logit_(scale|bias)$|text\.proj\.|text\.transformer\.pooler\."
_OF_INTERNVL = (
    r"vision_model\.|query_tokens$|text_projection$|logit_scale$|clip_projector2?\.|itm_head\.|"
    r"qllama\.lm_head\.|qllama\.(model\.)+layers\.\d+\.cross_attn\."
)
_OF_GEMMA = r"(model\.)?(vision_tower|multi_modal_projector)\.|(language_model\.)?lm_head\."
_OF_T5 = r"decoder\.|lm_head\."

FORMS = {
    "chinese_clip": Form(
        "a Chinese-CLIP", "text_config", r"text_model\.", _OF_CLIP, "bert", max_length=52
    ),
    "altclip": Form(
        "an AltCLIP", "text_config", r"text_model\.", _OF_CLIP, "altclip_text_model", max_length=77
    ),
    "clip": Form(
        "a CLIP", "text_config", r"text_model\.", _OF_CLIP, "clip_text_model", max_length=77
    ),
    "siglip": Form(
        "a SigLIP", "text_config", r"text_model\.", _OF_CLIP, "siglip_text_model", max_length=64
    ),
    "siglip2": Form(
        "a SigLIP 2", "text_config", r"text_model\.", _OF_CLIP, "siglip2_text_model", max_length=64
    ),
    "open_clip": Form(
        "an OpenCLIP", "hf_model_name", r"text\.transformer\.", _OF_OPEN_CLIP, max_length=77
    ),
    "M-CLIP": Form(
        "an M-CLIP", "modelBase", r"transformer\.", r"LinearTransformation\.|transformer\.pooler\."
    ),
    "internvl": Form(
        "an InternVL-14B-224px",
        "qllama_config",
        r"qllama\.(model\.)+",
        _OF_INTERNVL,
        "llama",
        max_length=80,
        tokenizer=(("add_eos_token", True), ("pad_token", "<unk>")),
    ),
    "gemma3": Form(
        "a Gemma 3 that reads pictures",
        "text_config",
        r"language_model\.model\.|model\.language_model\.",
        _OF_GEMMA,
        "gemma3_text",
    ),
    **{kind: Form("a T5 with its decoder", "", "^$", _OF_T5) for kind in ("t5", "mt5", "umt5")},
    "altclip_text_model": Form("an AltCLIP text model with the older names", "", "^$", "^$"),
}
"""Layouts by the model type in config.json. `open_clip` has none: it is known by its files."""

_PLAIN = Form(
    "a model without safetensors",
    "",
    r"(roberta|bert|distilbert|model|text_model)\.",
    "|".join(map(re.escape, HEADS)),
)
CONVERTED = "encoders/"
"""Where configs expect the encoder that was taken out of a hub entry: `encoders/HUB_ID`."""

_COMPUTED = re.compile(r"(position_ids|token_type_ids|rotary_emb\.inv_freq)$")
_OLD_LAYER = re.compile(r"(?<=encoder\.)layer(?=\.\d)")


def new_name(name: str) -> str:
    """The name of a tensor of AltCLIP's text half in transformers 5. Older files, whole AltCLIPs
    and XLM-R call a layer `layer.N` instead of `layers.N`.
    """
    return _OLD_LAYER.sub("layers", name)


def is_computed(name: str) -> bool:
    """Whether a tensor is a table of positions that older files hold and the library computes."""
    return bool(_COMPUTED.search(name))


def find_form(files: Collection[str], config: dict[str, Any]) -> Form | None:
    """The layout of a model by the names of its files and its config.json; None if unknown."""
    if any(name.startswith("open_clip_") for name in files):
        return FORMS["open_clip"]
    kind = str(config.get("model_type"))
    return FORMS.get(kind) or (_PLAIN if kind in CLASSES else None)


def look_into(name: str, revision: str | None = None) -> tuple[set[str], dict[str, Any]]:
    """The names of the files of a model, in a folder or on the hub, and its config.json, empty if
    it has none. No code of the model runs.

    Raises:
        FileNotFoundError: there is no such folder or hub entry.
        ValueError: the config is broken.
    """
    folder = Path(resolve(name))
    if folder.is_dir():
        files = {path.name for path in folder.iterdir()}
    else:
        files = _files_on_hub(name, revision)
    if "config.json" not in files:
        return files, {}
    if not folder.is_dir():
        from huggingface_hub import hf_hub_download

        folder = Path(hf_hub_download(name, "config.json", revision=revision)).parent
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the config.json of {name} is broken; copy the model again") from error
    return files, config if isinstance(config, dict) else {}


def _files_on_hub(name: str, revision: str | None) -> set[str]:
    from huggingface_hub import list_repo_files

    try:
        return set(list_repo_files(name, revision=revision))
    except Exception as error:  # of the hub, the network, and the rules for ids
        raise FileNotFoundError(f"no folder and no reachable hub entry named {name!r}") from error


def choose_weights(files: Collection[str], name: str, variant: str | None = None) -> list[str]:
    """The files among `files` that hold a model's weights: safetensors where there are any, else
    pickles.

    Args:
        files: names of all files of the model.
        name: of the model, for errors.
        variant: of the weights, such as `fp16`; the only one where there is but one.

    Raises:
        FileNotFoundError: there are none of this variant, or a shard is missing.
    """
    variant = variant or only_variant(files)
    found: dict[str | None, dict[str, list[re.Match[str]]]] = {}
    for match in filter(None, map(WEIGHTS_FILE.fullmatch, sorted(files))):
        kinds = found.setdefault(match["early"] or match["late"], {})
        kinds.setdefault(match["ending"], []).append(match)
    if variant not in found:
        others = " or ".join(f"--variant {known}" for known in found if known)
        raise FileNotFoundError(
            f"{name} has no weights{f' of variant {variant}' if variant else ''}; give "
            f"{others or 'another model'}"
        )
    chosen = found[variant].get("safetensors") or found[variant]["bin"]
    chosen = [match for match in chosen if not match["count"]] or chosen
    count = int(chosen[0]["count"] or len(chosen))
    if len(chosen) != count:
        raise FileNotFoundError(
            f"{name} has {len(chosen)} of {count} files such as {chosen[0][0]}; copy it again"
        )
    return [match[0] for match in chosen]


def conversion(name: str) -> str:
    """The command that converts a model, ready to paste."""
    place = CONVERTED + (Path(name).name if Path(name).is_dir() else name)
    words = ["encoder", "convert", "--input", name, "--output_dir", place]
    return f"`crosslingual {shlex.join(words)}`"


def offer_conversion(name: str, revision: str | None, error: Exception) -> Exception:
    """The error that names the command which makes a loadable encoder of a model that was not
    loaded because of `error`; that error itself where no command helps.
    """
    source = name.removeprefix(CONVERTED)
    if source != name and not Path(name).is_dir():
        return FileNotFoundError(f"there is no folder {name} yet: make it by {conversion(source)}")
    try:
        files, config = look_into(name, revision)
    except (ValueError, FileNotFoundError):
        return error
    form = find_form(files, config)
    endings = {match["ending"] for match in map(WEIGHTS_FILE.fullmatch, files) if match}
    is_plain = str(config.get("model_type")) in CLASSES and "safetensors" in endings
    is_misfit = form is not _PLAIN and "does not fit" in str(error)
    if form is None or not endings or (is_plain and not is_misfit):
        return error
    return ValueError(
        f"{name} is {form.title}, of which this program reads the text encoder alone: take it out "
        f"once by {conversion(name)}, and give that folder as `--text_encoder`"
    )
