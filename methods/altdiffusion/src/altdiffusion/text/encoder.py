"""The student: `transformers.AltCLIPTextModel`, built from XLM-R, loaded strictly, and saved so
that stock diffusers uses it as training did.

One layer has two names: `roberta.encoder.layers.N` in transformers 5, `roberta.encoder.layer.N` in
older files and whole `AltCLIPModel` folders. `from_pretrained` of the text half alone knows only
the first and fills the rest with random numbers. Here both are read and nothing is filled in.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crosslingual.adapter.artifact import load_strict, load_tensors
from crosslingual.features.ragged import Ragged
from crosslingual.frozen.encoders import encoder_config, load_multilingual_encoder
from crosslingual.frozen.weights import freeze, load_frozen, quiet_libraries

STUDENTS = ("altclip_text_model", "altclip")
_OLD_LAYER = re.compile(r"(?<=encoder\.)layer(?=\.\d)")


@dataclass
class TextEncoder:
    """A student and its tokenizer.

    Attributes:
        model: the AltCLIPTextModel.
        tokenizer: pads on the right; its `model_max_length` is `max_length`.
        max_length: M, tokens that the UNet sees of a prompt.
    """

    model: nn.Module
    tokenizer: Any
    max_length: int

    @property
    def width(self) -> int:
        """Of a token's state, which is the teacher's and has to be the UNet's."""
        return int(self.model.config.project_dim)

    def tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L), padded to the longest; longer ones are cut with their end kept."""
        tokens = self.tokenizer(
            texts,
            padding="longest",
            max_length=self.max_length,
            truncation=True,
            return_tensors="pt",
        )
        return tokens.input_ids, tokens.attention_mask

    @torch.no_grad()
    def encode_packed(self, texts: list[str]) -> Ragged:
        """The states of each text's tokens and of the first padding token after them.

        Padding tokens have the same input and see the same tokens, and none sees them: they end up
        the same, so one stands for all. `unpack` repeats it. At 77 tokens and captions of 20 that
        is a fourth of the work, with the same result.
        """
        ids, mask = (part.to(self.model.device) for part in self.tokenize(texts))
        if ids.shape[1] < self.max_length:
            ids = nn.functional.pad(ids, (0, 1), value=self.tokenizer.pad_token_id)
            mask = nn.functional.pad(mask, (0, 1))
        states = self.model(ids, attention_mask=mask).last_hidden_state
        lengths = (mask.sum(dim=1) + 1).clamp(max=self.max_length)
        kept = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        return Ragged(states[kept], lengths)


def unpack(states: Ragged, max_length: int) -> Tensor:
    """What the UNet sees: the states of each row's tokens, then its padding state repeated, (B, M,
    D).
    """
    ends = states.lengths.cumsum(0)
    places = torch.arange(max_length, device=ends.device).expand(len(ends), -1)
    places = places.minimum(states.lengths[:, None] - 1) + (ends - states.lengths)[:, None]
    return states.values[places]


def build_student(
    name: str, width: int, revision: str | None = None, max_length: int | None = None
) -> TextEncoder:
    """A student that starts from a multilingual encoder, or one that was trained already.

    Args:
        name: id or folder of an XLM-R, or a folder of an AltCLIPTextModel or AltCLIPModel.
        width: P, of the teacher's pooled state.
        revision: of the hub entry.
        max_length: tokens a sentence; the encoder's own limit, and at most 77, if None.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: another architecture, or a trained student of another width.
    """
    config = encoder_config(name, revision)
    if config.model_type in STUDENTS:
        trained = load_text_encoder(name, revision, max_length)
        if trained.width != width:
            raise ValueError(
                f"{name} gives vectors of width {trained.width}, the teacher {width}: choose the "
                "teacher that it was trained after"
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
    """A student with random weights, in the shape of a multilingual encoder.

    The published student has no dropout: the target is a fixed vector, which noise only blurs.
    """
    from transformers import AltCLIPTextConfig, AltCLIPTextModel

    config = config_of_text(encoder_config(name, revision)).to_dict()
    shape = {key: value for key, value in config.items() if key in _SHAPE}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return AltCLIPTextModel(AltCLIPTextConfig(**shape, project_dim=width))


def load_text_encoder(
    name: str, revision: str | None = None, max_length: int | None = None
) -> TextEncoder:
    """A trained student, frozen.

    Args:
        name: a folder that training or export wrote (of the text encoder, an AltCLIPModel, or a
            whole pipeline), or a hub id.
        revision: of the hub entry.
        max_length: tokens a prompt; the tokenizer's own limit, and at most 77, if None.

    Raises:
        FileNotFoundError: nothing there, or no safetensors.
        ValueError: it is no student, or a key is missing or not expected.
    """
    from transformers import AltCLIPTextModel

    place = student_places(name)[0]
    config = student_config(name, revision)
    if Path(place).is_dir():
        model = _load_local(Path(place), config)
    else:
        model = load_frozen(AltCLIPTextModel, place, revision=revision)
    tokenizer = load_tokenizer(name, revision, max_length)
    return TextEncoder(model, tokenizer, tokenizer.model_max_length)


def load_tokenizer(name: str, revision: str | None = None, max_length: int | None = None) -> Any:
    """A trained student's tokenizer; its `model_max_length` is the tokens of a prompt."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student_places(name)[1], revision=revision)
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = max_length or min(77, int(tokenizer.model_max_length))
    return tokenizer


def student_places(name: str) -> tuple[str, str]:
    """Where a student and its tokenizer lie: in a pipeline's folder they are apart."""
    folder = Path(name)
    if (folder / "model_index.json").is_file():
        return str(folder / "text_encoder"), str(folder / "tokenizer")
    return name, name


def student_config(name: str, revision: str | None = None) -> Any:
    """A trained student's config, without its weights.

    Raises:
        FileNotFoundError: nothing of that name can be reached.
        ValueError: it is no trained student.
    """
    config = encoder_config(student_places(name)[0], revision)
    if config.model_type not in STUDENTS:
        raise ValueError(
            f"{name} is a {config.model_type}, not a trained AltCLIP text encoder: run "
            "`altdiffusion train-text` and give the text_encoder that it writes"
        )
    return config


def config_of_text(config: Any) -> Any:
    """The text half's config, of itself or of a whole AltCLIPModel."""
    return config.text_config if config.model_type == "altclip" else config


def tell_diffusers(encoder: TextEncoder) -> None:
    """Sets what makes stock diffusers use the encoder as training did.

    Without `use_attention_mask` its pipelines give no mask, and every token would attend to the
    padding; without the tokenizer's `model_max_length` they would pad to 512.
    """
    encoder.model.config.use_attention_mask = True
    encoder.tokenizer.model_max_length = encoder.max_length


def save_text_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Writes model and tokenizer, for stock diffusers too."""
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
    model = AltCLIPTextModel(config_of_text(config))
    try:
        load_strict(model, {k: v.float() for k, v in _new_names(state).items()})
    except ValueError as error:
        raise ValueError(
            f"{folder}: {error}; its layers would be random, so it is not used"
        ) from error
    return freeze(model)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, of one file or of many with an index."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return {k: v for name in names for k, v in load_tensors(folder / name).items()}
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"no model.safetensors in {folder}: only safetensors are read")
    return load_tensors(path)


def _new_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of transformers 5; buffers that old files carry are left out."""
    renamed = {_OLD_LAYER.sub("layers", name): tensor for name, tensor in state.items()}
    return {k: v for k, v in renamed.items() if not k.endswith(("position_ids", "token_type_ids"))}


_SHAPE = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "max_position_embeddings hidden_act layer_norm_eps pad_token_id bos_token_id eos_token_id "
    "type_vocab_size initializer_range"
).split()
