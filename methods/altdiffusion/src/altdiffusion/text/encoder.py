"""The student: `transformers.AltCLIPTextModel`, built from XLM-R, loaded strictly, and saved so
that stock diffusers uses it as training did.

One layer has two names: `roberta.encoder.layers.N` in transformers 5, `roberta.encoder.layer.N` in
older files and whole `AltCLIPModel` folders. `AltCLIPTextModel.from_pretrained` knows only the
first and fills the rest with random numbers. This module reads both and fills in nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter.artifact import load_strict, load_tensors
from crosslingual.features.ragged import Ragged
from crosslingual.frozen.encoders import (
    encoder_config,
    load_multilingual_encoder,
    offering_conversion,
)
from crosslingual.frozen.forms import is_computed, new_name
from crosslingual.frozen.tokens import tokenize
from crosslingual.frozen.weights import freeze, load_frozen, open_tokenizer, quiet_libraries

STUDENTS = ("altclip_text_model", "altclip")
LINEAR = "XLMRobertaForTokenClassification"
"""What computes a student without `pre_LN`, AltDiffusion-m9's: XLM-R, then a linear layer."""


@dataclass
class TextEncoder:
    """A student and its tokenizer.

    Attributes:
        model: the AltCLIPTextModel.
        tokenizer: pads on the right; its `model_max_length` is `max_length`.
        max_length: M, tokens per prompt that the UNet sees.
    """

    model: nn.Module
    tokenizer: Any
    max_length: int

    @property
    def width(self) -> int:
        """Width of a token's state: the teacher's, which has to equal the UNet's."""
        return int(self.model.config.project_dim)

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L), padded to the longest; truncated texts keep their end token."""
        tokens = tokenize(self.tokenizer, texts, self.max_length)
        return tokens.input_ids, tokens.attention_mask

    @torch.no_grad()
    def encode_packed(self, texts: list[str]) -> Ragged:
        """Encodes each text's tokens and the first padding token after them.

        Padding tokens have the same input, attend to the same tokens, and no token attends to them,
        so their states are equal and one is enough. `unpack` repeats it. For 20-token captions at
        77 tokens that is a fourth of the work, with the same result.
        """
        ids, mask = (part.to(self.model.device) for part in self.tokenize(texts))
        if ids.shape[1] < self.max_length:
            ids = nn.functional.pad(ids, (0, 1), value=self.tokenizer.pad_token_id)
            mask = nn.functional.pad(mask, (0, 1))
        states = self.model(ids, attention_mask=mask)[0]
        lengths = (mask.sum(dim=1) + 1).clamp(max=self.max_length)
        kept = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        return Ragged(states[kept], lengths)


def unpack(states: Ragged, max_length: int) -> Tensor:
    """The UNet's text input (B, M, D): the states of each row's tokens, then its padding state
    repeated.
    """
    ends = states.lengths.cumsum(0)
    places = torch.arange(max_length, device=ends.device).expand(len(ends), -1)
    places = places.minimum(states.lengths[:, None] - 1) + (ends - states.lengths)[:, None]
    return states.values[places]


def build_student(
    name: str, width: int, revision: str | None = None, max_length: int | None = None
) -> TextEncoder:
    """Builds a student from a multilingual encoder, or loads one that was already trained.

    Args:
        name: id or folder of an XLM-R, or a folder of an AltCLIPTextModel or AltCLIPModel.
        width: P, width of the teacher's pooled state.
        revision: git revision of the hub entry.
        max_length: tokens per sentence; if None, the encoder's own limit, at most 77.

    Raises:
        FileNotFoundError: there is no such encoder.
        ValueError: it has another architecture, or is a trained student of another width.
    """
    config = encoder_config(name, revision)
    if config.model_type in STUDENTS:
        trained = load_text_encoder(name, revision, max_length)
        if trained.width != width:
            raise ValueError(
                f"{name} gives vectors of width {trained.width}, the teacher {width}: choose the "
                "teacher that it was trained with"
            )
        trained.model.requires_grad_(True)
        return trained
    if config.model_type not in ("xlm-roberta", "roberta"):
        raise ValueError(
            f"a student starts from XLM-R, and {name} is a {config.model_type}: choose another "
            "--text_encoder"
        )
    body = load_multilingual_encoder(name, revision, max_length)
    student = new_student(name, width, revision)
    load_strict(student.roberta, _new_names(body.model.state_dict()))
    return TextEncoder(student, body.tokenizer, body.max_length)


def new_student(name: str, width: int, revision: str | None = None) -> nn.Module:
    """Builds a student with random weights, in the shape of a multilingual encoder.

    The published student has no dropout, since noise would only blur its fixed target vector.
    """
    from transformers import AltCLIPTextConfig, AltCLIPTextModel

    config = config_of_text(encoder_config(name, revision)).to_dict()
    shape = {key: value for key, value in config.items() if key in SHAPE}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return AltCLIPTextModel(AltCLIPTextConfig(**shape, project_dim=width))


def new_published(shape: dict[str, Any], has_pre_norm: bool) -> nn.Module:
    """Builds the authors' student with random weights: m18's, or m9's without `pre_LN`."""
    import transformers

    if has_pre_norm:
        return transformers.AltCLIPTextModel(transformers.AltCLIPTextConfig(**shape))
    return getattr(transformers, LINEAR)(transformers.XLMRobertaConfig(**shape))


def load_text_encoder(
    name: str, revision: str | None = None, max_length: int | None = None
) -> TextEncoder:
    """Loads a trained student, frozen.

    Args:
        name: a folder that training or export wrote (a text encoder, an AltCLIPModel, or a whole
            pipeline), or a hub id.
        revision: git revision of the hub entry.
        max_length: tokens per prompt; if None, the tokenizer's own limit, at most 77.

    Raises:
        FileNotFoundError: there is no such student.
        ValueError: the model is not a student, keys are missing or unexpected, or it has pickles
            alone: the error names the command that converts it.
    """
    from transformers import AltCLIPTextModel, XLMRobertaForTokenClassification

    place = student_places(name)[0]
    config = student_config(name, revision)
    if is_linear(config):
        model = load_frozen(XLMRobertaForTokenClassification, place, revision=revision)
    elif Path(place).is_dir():
        model = _load_local(Path(place), config)
    else:
        with offering_conversion(place, revision):
            model = load_frozen(AltCLIPTextModel, place, revision=revision)
    tokenizer = load_tokenizer(name, revision, max_length)
    return TextEncoder(model, tokenizer, tokenizer.model_max_length)


def load_tokenizer(name: str, revision: str | None = None, max_length: int | None = None) -> Any:
    """Loads a trained student's tokenizer; its `model_max_length` is the tokens per prompt."""
    tokenizer = open_tokenizer(student_places(name)[1], revision)
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = max_length or min(77, int(tokenizer.model_max_length))
    return tokenizer


def student_places(name: str) -> tuple[str, str]:
    """Returns where a student and its tokenizer are: two folders in a pipeline's, or else one."""
    folder = Path(name)
    if (folder / "model_index.json").is_file():
        return str(folder / "text_encoder"), str(folder / "tokenizer")
    return name, name


def student_config(name: str, revision: str | None = None) -> Any:
    """Reads a trained student's config, without its weights.

    Raises:
        FileNotFoundError: no model of that name can be reached.
        ValueError: the model is not a trained student.
    """
    config = encoder_config(student_places(name)[0], revision)
    if config.model_type not in STUDENTS and not is_linear(config):
        raise ValueError(
            f"{name} is a {config.model_type}, not a trained AltCLIP text encoder: run "
            "`altdiffusion train-text` and give the text_encoder that it writes"
        )
    return config


def is_linear(config: Any) -> bool:
    """Whether a config is that of an imported student without `pre_LN`."""
    return LINEAR in (config.architectures or ())


def config_of_text(config: Any) -> Any:
    """Returns the text model's config, also out of a whole AltCLIPModel's."""
    return config.text_config if config.model_type == "altclip" else config


def tell_diffusers(encoder: TextEncoder) -> None:
    """Configures model and tokenizer so that stock diffusers uses them as training did.

    Without `use_attention_mask`, its pipelines pass no mask and every token attends to the padding;
    without the tokenizer's `model_max_length`, they pad to 512.
    """
    encoder.model.config.use_attention_mask = True
    encoder.tokenizer.model_max_length = encoder.max_length


def save_text_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Writes model and tokenizer, which stock diffusers can load too."""
    tell_diffusers(encoder)
    with quiet_libraries():
        encoder.model.save_pretrained(folder)
        encoder.tokenizer.save_pretrained(folder)


def _load_local(folder: Path, config: Any) -> nn.Module:
    from transformers import AltCLIPTextModel

    state = _read_folder(folder)
    if config.model_type == "altclip":
        prefix = "text_model."
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    with torch.random.fork_rng(devices=[]):  # the caller's
        model = AltCLIPTextModel(config_of_text(config))
    try:
        load_strict(model, {k: v.float() for k, v in _new_names(state).items()})
    except ValueError as error:
        raise ValueError(
            f"{folder}: {error}; its layers would be random, so it is not used"
        ) from error
    return freeze(model)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """Reads all tensors of a folder, from one file or from several with an index."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return {k: v for name in names for k, v in load_tensors(folder / name).items()}
    path = folder / "model.safetensors"
    if not path.is_file():
        with offering_conversion(str(folder), None):
            raise FileNotFoundError(f"no model.safetensors in {folder}: only safetensors are read")
    return load_tensors(path)


def _new_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames tensors as in transformers 5, and leaves out the buffers of old files."""
    return {new_name(k): v for k, v in state.items() if not is_computed(k)}


SHAPE = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "max_position_embeddings hidden_act layer_norm_eps pad_token_id bos_token_id eos_token_id "
    "type_vocab_size initializer_range"
).split()
