"""The translation model as a folder: built on a pretrained encoder, written, read back.

FOLDER/config.json          method, kind, languages, the decoder's shape
FOLDER/model.safetensors    language maps and decoder
FOLDER/encoder/             XLM-R and its tokenizer in transformers' format
FOLDER/README.md
"""

from pathlib import Path
from typing import Any

from crosslingual.adapter.artifact import load_artifact, load_strict, model_card, save_artifact
from crosslingual.frozen.encoders import encoder_config, load_multilingual_encoder
from mclip.translation import TranslationModel

ENCODER_FOLDER = "encoder"
CARD = """\
XLM-R (`encoder/`, enhanced from `{text_encoder}` on parallel text) with the decoder that taught it:
{num_decoder_layers} layers, {num_languages} target languages. Stage 1 of mCLIP (ACL 2023).

```bash
mclip translate --model this/folder --target_language {example} --input sentences.txt
mclip train --text_encoder this/folder/encoder ...
```
"""


def build_translation(
    text_encoder: str,
    languages: list[str],
    *,
    num_decoder_layers: int,
    decoder_ffn_width: int,
    num_decoder_heads: int,
    dropout: float = 0.1,
    revision: str | None = None,
) -> tuple[TranslationModel, Any]:
    """A pretrained XLM-R with fresh maps and decoder, drawn by torch's global generator.

    Args:
        text_encoder: a hub id, a folder or testbed:xlm-r.
        languages: BCP-47 codes that can be translated into.
        num_decoder_layers, decoder_ffn_width, num_decoder_heads: the decoder's shape.
        dropout: the decoder's; the encoder keeps its own.
        revision: of the hub entry.

    Returns:
        The model, on CPU, all of it frozen until `set_trainable`, and XLM-R's tokenizer.

    Raises:
        ValueError: the encoder is no XLM-R, or the heads do not divide its width.
    """
    shape = encoder_config(text_encoder, revision)
    if shape.model_type != "xlm-roberta":
        raise ValueError(f"{text_encoder} is of type {shape.model_type}; stage 1 enhances an XLM-R")
    if shape.hidden_size % num_decoder_heads:
        raise ValueError(
            f"{num_decoder_heads} decoder heads do not divide the width {shape.hidden_size}; "
            "change --num_decoder_heads"
        )
    config = {
        "languages": sorted(languages),
        "num_decoder_layers": num_decoder_layers,
        "decoder_ffn_width": decoder_ffn_width,
        "num_decoder_heads": num_decoder_heads,
        "dropout": dropout,
        "text_encoder": text_encoder,
    }
    found = load_multilingual_encoder(text_encoder, revision)
    return TranslationModel(found.model, config).requires_grad_(False).eval(), found.tokenizer


def save_translation(folder: str | Path, model: TranslationModel, tokenizer: Any) -> Path:
    """Writes the folder beside and renames it, so that it is complete or absent.

    Args:
        folder: replaced if it holds a model already.
        model: with its weights; ZeRO's shards gathered before.
        tokenizer: XLM-R's.
    """
    languages = model.config["languages"]

    def write_encoder(place: Path) -> None:
        model.encoder.save_pretrained(place / ENCODER_FOLDER)
        tokenizer.save_pretrained(place / ENCODER_FOLDER)

    card = model_card(
        title="Translation model of mCLIP's stage 1",
        text=CARD.format(num_languages=len(languages), example=languages[0], **model.config),
        base_model=model.config["text_encoder"],
        languages=languages,
        pipeline_tag="translation",
        tags=["mclip", "cross-lingual"],
        license="mit",
    )
    config = {"method": "mclip", "kind": "translation", **model.config, "encoder": ENCODER_FOLDER}
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("encoder.")
    }
    save_artifact(folder, state=state, config=config, card=card, add=write_encoder)
    return Path(folder)


def load_translation(folder: str | Path) -> tuple[TranslationModel, Any]:
    """Reads what `save_translation` wrote.

    Returns:
        The model, on CPU, frozen and in evaluation mode, and the tokenizer.

    Raises:
        FileNotFoundError, ValueError: no translation model there, a pickle, or keys that do not
            fit.
    """
    config, state = load_artifact(folder)
    if (config.pop("method", None), config.pop("kind", None)) != ("mclip", "translation"):
        raise ValueError(
            f"{folder} holds no translation model; give the folder `translation` of a run of "
            "`mclip train-encoder`"
        )
    encoder = load_multilingual_encoder(str(Path(folder) / config.pop("encoder")))
    model = TranslationModel(encoder.model, config)
    loaded = {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    load_strict(model, {**loaded, **state})
    return model.requires_grad_(False).eval(), encoder.tokenizer
