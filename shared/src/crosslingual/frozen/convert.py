"""Takes the text encoder out of a published model, once, as a plain folder of transformers.

Each layout is a line in `forms.FORMS`; `rewrite` is the one place where names change. A tensor that
belongs nowhere, or is missing, or has another shape, is an error: nothing is guessed or left
random. Pickles are read as tensors alone (`weights_only`), and no code of a model runs.
"""

import re
import shutil
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from crosslingual.files import read_fields
from crosslingual.folders import check_folder, publish_folder
from crosslingual.frozen import forms
from crosslingual.frozen.encoders import encoder_config, encoder_of
from crosslingual.frozen.forms import Form
from crosslingual.frozen.weights import (
    differences,
    freeze,
    open_tokenizer,
    quiet_libraries,
    reading,
    resolve,
)

KIND = "text encoder"
OPEN_CLIP_CONFIG = "open_clip_config.json"
_TOKENIZER = re.compile(
    r"tokenizer.*|vocab.*|merges.*|added_tokens.*|special_tokens_map.*|.*\.model"
)
_BODIES = {f"xlm-roberta-{size}": f"FacebookAI/xlm-roberta-{size}" for size in ("base", "large")}
_TOWERS = {768: "xlm-roberta-base", 1024: "xlm-roberta-large"}
"""The text towers of LAION's OpenCLIP models, whose hub entries lack a config, by their width."""

CARD = """\
---
library_name: transformers
base_model: {name}
---

# Text encoder of {name}

A `{model}` of transformers with {num_parameters:,} parameters, which reads {max_length} tokens.
`crosslingual encoder convert` took it out of {title}. Its tensors are those of the original, bit by
bit, and so is its licence.

Tensors that were left out, since token states do not pass them: {left}.
"""


class Converted(NamedTuple):
    """What a conversion wrote.

    Attributes:
        folder: its absolute path.
        title: what the model was.
        left: starts of the names of tensors that were left out, with their number.
        max_length: tokens of a text.
    """

    folder: Path
    title: str
    left: dict[str, int]
    max_length: int


def convert(
    name: str, output_dir: str | Path, revision: str | None = None, variant: str | None = None
) -> Converted:
    """Writes the text encoder of a published model as a folder that `load_multilingual_encoder` and
    transformers' own classes read.

    Args:
        name: folder, hub id or WORLD:NAME.
        output_dir: new or empty, or a folder that this function wrote.
        revision: git revision of the hub entry.
        variant: of the weights, such as `fp16`.

    Raises:
        FileNotFoundError: there is no such model, or a file of it is missing.
        ValueError: the layout is not known; the error names the nearest one and what differs.
    """
    files, config = forms.look_into(name, revision)
    form = forms.find_form(files, config)
    weights = forms.choose_weights(files, name, variant)
    folder = _fetch(name, revision, files, weights)
    state = {key: tensor for file in weights for key, tensor in _read(folder / file).items()}
    if form is None:
        raise ValueError(f"{name} is of no known layout: {_nearest(state)}")
    body, length = body_of(form, config, folder, state)
    model, left = rewrite(form, _encoder_config(form, config, body), state, name)
    tokenizer = _tokenizer(form, model.config, folder, body, length)

    def fill(partial: Path) -> None:
        with quiet_libraries():
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        card = CARD.format(
            name=name,
            title=form.title,
            model=type(model).__name__,
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
            max_length=tokenizer.model_max_length,
            left=", ".join(f"`{start}` ({n})" for start, n in left.items()) or "nothing",
        )
        (partial / "README.md").write_text(card, encoding="utf-8")

    written = publish_folder(output_dir, fill, kind=KIND)
    return Converted(written, form.title, left, tokenizer.model_max_length)


def rewrite(
    form: Form, config: Any, state: dict[str, Tensor], name: str
) -> tuple[nn.Module, dict[str, int]]:
    """The encoder of a config with the tensors of a published state dict, and how many tensors were
    left out by the start of their names.

    Raises:
        ValueError: a tensor is missing, belongs to no part of this layout, or has another shape.
    """
    with torch.device("meta"):
        model = encoder_of(config)
    wanted = model.state_dict()
    own: dict[str, Tensor] = {}
    left: Counter[str] = Counter()
    for old, tensor in state.items():
        bare = re.sub(rf"^(?:{form.prefix})", "", old)
        names = (old, bare, forms.new_name(old), forms.new_name(bare))
        new = next((name for name in names if name in wanted and name not in own), None)
        if new is not None:
            own[new] = tensor
        elif found := re.match(form.others, old):
            left[re.sub(r"\.\d+\.", ".N.", found[0])] += 1
        elif not forms.is_computed(old):
            own[old] = tensor
    for copy, source in model.all_tied_weights_keys.items():
        if source in own and (copy not in own or torch.equal(own[copy], own[source])):
            own[copy] = own[source]
    if faults := differences(wanted, own):
        raise ValueError(f"{name} is nearest to {form.title}, and differs: {faults}")
    model.load_state_dict(own, assign=True)
    model.tie_weights()
    return freeze(model), dict(left)


def _fetch(name: str, revision: str | None, files: set[str], weights: list[str]) -> Path:
    """The folder of a model, downloaded as far as it is needed."""
    folder = Path(resolve(name))
    if folder.is_dir():
        check_folder(folder)
        return folder
    from huggingface_hub import snapshot_download

    needed = {"config.json", OPEN_CLIP_CONFIG, *weights}
    needed |= {file for file in files if _TOKENIZER.fullmatch(file)}
    return Path(snapshot_download(name, revision=revision, allow_patterns=sorted(needed)))


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, mapped from disk where the format can be."""
    with reading(str(path), "weights"):
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
            raise ValueError(f"{path} holds more than a state dict of tensors; give another model")
        return state


def _nearest(state: dict[str, Tensor]) -> str:
    """Names the layouts that know the most tensors by name, and tensors that they do not know."""
    strange: dict[str, list[str]] = {}
    for form in forms.FORMS.values():
        known = re.compile(f"{form.prefix}|{form.others}")
        strange[form.title] = [name for name in state if not known.match(name)]
    fewest = min(strange.values(), key=len)
    nearest = [title for title, names in strange.items() if len(names) == len(fewest)]
    return (
        f"the nearest is {' or '.join(nearest)}, where {len(fewest)} of {len(state)} tensors are "
        f"not expected, such as {', '.join(fewest[:3])}; known are {', '.join(strange)}, and "
        f"models of the types {', '.join(forms.CLASSES)}"
    )


def body_of(
    form: Form, config: dict[str, Any], folder: Path, state: dict[str, Tensor]
) -> tuple[str | None, int | None]:
    """The model whose config and tokenizer the encoder has, if the layout names one, and the tokens
    of a text.
    """
    if form.part == "modelBase":
        name = config.get("modelBase", "xlm-roberta-large")  # the authors' default
        return _BODIES.get(name, name), form.max_length
    if form.part != "hf_model_name":
        return None, form.max_length
    path = folder / OPEN_CLIP_CONFIG
    if not path.is_file():
        table = state.get("text.transformer.embeddings.word_embeddings.weight")
        name = None if table is None else _TOWERS.get(table.shape[1])
        return _BODIES.get(name or ""), form.max_length
    text = read_fields(path, {"model_cfg": dict[str, Any]}, "copy the model again")["model_cfg"]
    name = text.get("text_cfg", {}).get("hf_model_name")
    length = text.get("text_cfg", {}).get("context_length", form.max_length)
    return _BODIES.get(name, name), length


def _encoder_config(form: Form, config: dict[str, Any], body: str | None) -> Any:
    """The encoder's own config."""
    from transformers import AutoConfig

    if body is not None:
        return encoder_config(body)
    if form.part == "hf_model_name":
        raise ValueError(
            "this OpenCLIP's text tower is not one of transformers (its config names no "
            "hf_model_name, or its width is not XLM-R's); give the model's transformers version"
        )
    kind = form.encoder or config["model_type"]
    if form.part == "text_config":
        config = AutoConfig.for_model(**config).text_config.to_dict()
    elif form.part:
        config = dict(config[form.part])
    dropped = ("model_type", "architectures", "auto_map", "_name_or_path", "transformers_version")
    shape = {key: value for key, value in config.items() if key not in dropped}
    return AutoConfig.for_model(kind, **shape)


def _tokenizer(form: Form, config: Any, folder: Path, body: str | None, length: int | None) -> Any:
    """The tokenizer in the folder, or else the body's, which pads on the right to `length` and says
    which tokens are padding.
    """
    options = {"padding_side": "right", "model_input_names": ["input_ids", "attention_mask"]}
    options |= dict(form.tokenizer)
    files = [path for path in folder.iterdir() if _TOKENIZER.fullmatch(path.name)]
    with tempfile.TemporaryDirectory() as place:  # without a config that asks for code
        for path in files:
            shutil.copy(path, place)
        config.save_pretrained(place)
        tokenizer = open_tokenizer(place if files or body is None else body, **options)
    if length is not None:
        positions = config.to_dict().get("max_position_embeddings", length)
        tokenizer.model_max_length = min(length, positions, tokenizer.model_max_length)
    return tokenizer
