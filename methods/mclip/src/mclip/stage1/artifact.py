"""The translation model: built on a pretrained encoder, written to a folder, read back.

FOLDER/config.json          method, kind, languages, the decoder's shape
FOLDER/model.safetensors    language maps, decoder, and the tokens it predicts if not all
FOLDER/encoder/             XLM-R and its tokenizer in transformers' format
FOLDER/README.md
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from crosslingual.adapter.artifact import load_artifact, load_strict, model_card, save_artifact
from crosslingual.frozen.encoders import encoder_config, load_multilingual_encoder
from mclip.stage1.method import TranslationModel
from mclip.stage1.settings import TrainEncoderSettings

ENCODER_FOLDER = "encoder"
CARD = """\
XLM-R (`encoder/`, enhanced from `{text_encoder}` on parallel text) with the decoder that taught it:
{num_decoder_layers} layers, {num_languages} target languages. Stage 1 of mCLIP (ACL 2023).

```bash
mclip translate --model this/folder --target_language {example} --input sentences.txt
mclip train --text_encoder this/folder/encoder ...
```
"""


def translation_config(settings: TrainEncoderSettings, languages: Iterable[str]) -> dict[str, Any]:
    """What rebuilds a translation model: the languages to translate into, the decoder's shape and
    the encoder that it was made on.
    """
    return {
        "languages": sorted(languages),
        "num_decoder_layers": settings.num_decoder_layers,
        "decoder_ffn_width": settings.decoder_ffn_width,
        "num_decoder_heads": settings.num_decoder_heads,
        "dropout": settings.dropout,
        "text_encoder": settings.text_encoder,
    }


def build_translation(
    settings: TrainEncoderSettings, languages: Iterable[str]
) -> tuple[TranslationModel, Any]:
    """A pretrained XLM-R with fresh maps and decoder, drawn by torch's global generator.

    Args:
        settings: they name the encoder, the decoder's shape and its dropout; the encoder keeps its
            own dropout.
        languages: BCP-47 codes of the languages to translate into.

    Returns:
        The model, on CPU, all of it frozen until `set_trainable`, and XLM-R's tokenizer.

    Raises:
        ValueError: the encoder is not an XLM-R, or the heads do not divide its width.
    """
    text_encoder, revision = settings.text_encoder, settings.text_encoder_revision
    shape = encoder_config(text_encoder, revision)
    if shape.model_type != "xlm-roberta":
        raise ValueError(f"{text_encoder} is of type {shape.model_type}; stage 1 enhances an XLM-R")
    if shape.hidden_size % settings.num_decoder_heads:
        raise ValueError(
            f"{settings.num_decoder_heads} decoder heads do not divide the width "
            f"{shape.hidden_size}; change --num_decoder_heads"
        )
    config = translation_config(settings, languages)
    found = load_multilingual_encoder(text_encoder, revision)
    return TranslationModel(found.model, config).requires_grad_(False).eval(), found.tokenizer


def save_translation(
    folder: str | Path,
    model: TranslationModel,
    tokenizer: Any,
    trained: dict[str, Tensor] | None = None,
) -> Path:
    """Writes the folder, complete or not at all.

    Args:
        folder: replaced if it holds a model already.
        model: with its weights.
        tokenizer: XLM-R's.
        trained: tensors by name that replace the model's, such as their moving average.
    """
    model.load_state_dict(trained or {}, strict=False)
    languages = model.config["languages"]

    def write_encoder(place: Path) -> None:
        model.encoder.save_pretrained(place / ENCODER_FOLDER)
        tokenizer.save_pretrained(place / ENCODER_FOLDER)

    config = {"method": "mclip", "kind": "translation", **model.config, "encoder": ENCODER_FOLDER}
    card = model_card(
        "Translation model of mCLIP's stage 1",
        CARD,
        config,
        base_model=config["text_encoder"],
        pipeline_tag="translation",
        num_languages=len(languages),
        example=languages[0],
    )
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("encoder.")
    }
    if model.output_ids is not None:
        state["output_ids"] = model.output_ids.cpu()
    save_artifact(folder, state=state, config=config, card=card, add=write_encoder)
    return Path(folder)


def load_translation(folder: str | Path) -> tuple[TranslationModel, Any]:
    """Reads a folder of `save_translation`: the model, on CPU, frozen and in evaluation mode, and
    the tokenizer.

    Raises:
        FileNotFoundError, ValueError: no translation model there, a pickle, or keys that do not
            fit.
    """
    config, state = load_artifact(folder, "mclip")
    if config.pop("kind", None) != "translation":
        raise ValueError(
            f"{folder} holds no translation model; give the folder `translation` of a run of "
            "`mclip train-encoder`"
        )
    del config["method"]
    encoder = load_multilingual_encoder(str(Path(folder) / config.pop("encoder")))
    model = TranslationModel(encoder.model, config)
    loaded = {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    model.limit_output(state.pop("output_ids", None))
    load_strict(model, {**loaded, **state})
    return model.requires_grad_(False).eval(), encoder.tokenizer
