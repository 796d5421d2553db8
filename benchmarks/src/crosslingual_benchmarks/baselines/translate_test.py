"""Translate-test: a prompt is translated into English, and the English model reads that.

A translator is named as `KIND:FOLDER`. Kinds are what packages register under the entry point group
`crosslingual.translators`, such as `mclip` (the model of its stage 1), and `transformers`, a
sequence-to-sequence model such as NLLB or M2M100 by hub id or folder. AltDiffusion's authors used
NLLB-200-distilled-600M and mBART-50 with beam 5 (arXiv 2308.09991).
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

NUM_BEAMS = 5
GROUP = "crosslingual.translators"
FLORES = {
    "ar": "arb_Arab",
    "de": "deu_Latn",
    "en": "eng_Latn",
    "es": "spa_Latn",
    "fr": "fra_Latn",
    "hi": "hin_Deva",
    "it": "ita_Latn",
    "ja": "jpn_Jpan",
    "ko": "kor_Hang",
    "nl": "nld_Latn",
    "pl": "pol_Latn",
    "pt": "por_Latn",
    "ru": "rus_Cyrl",
    "th": "tha_Thai",
    "tr": "tur_Latn",
    "uk": "ukr_Cyrl",
    "vi": "vie_Latn",
    "zh": "zho_Hans",
}
"""NLLB's codes (arXiv 2207.04672) of the eighteen languages."""


class Translator(Protocol):
    """Translates sentences into English; it has to know their language itself."""

    def __call__(self, texts: list[str]) -> list[str]:
        """The translations, in order."""


def load_translator(name: str) -> Translator:
    """Loads `KIND:FOLDER`.

    Raises:
        ValueError: no such kind is installed; the installed ones are named.
    """
    kind, _, place = name.partition(":")
    kinds: dict[str, Callable[[str], Translator]] = {
        entry.name: lambda place, entry=entry: entry.load()(place)
        for entry in entry_points(group=GROUP)
    }
    kinds["transformers"] = load_transformers_translator
    if not place or kind not in kinds:
        raise ValueError(
            f"{name!r} names no translator: give KIND:FOLDER with one of {', '.join(sorted(kinds))}"
        )
    return kinds[kind](place)


@dataclass
class TransformersTranslator:
    """A sequence-to-sequence model of transformers.

    `language` is the source's code as the tokenizer wants it, None where it needs none.
    """

    model: Any
    tokenizer: Any
    language: str | None = None

    def __call__(self, texts: list[str]) -> list[str]:
        """Translates into English by beam search."""
        import torch

        from crosslingual.frozen.tokens import tokenize

        if self.language is not None:
            self.tokenizer.src_lang = self.language
        into = {}
        if hasattr(self.tokenizer, "src_lang"):
            english = self.tokenizer.convert_tokens_to_ids(FLORES["en"])
            if english == self.tokenizer.unk_token_id:
                english = self.tokenizer.get_lang_id("en")
            into = {"forced_bos_token_id": english}
        # a tokenizer without a limit says 1e30, which is more than it takes
        words = tokenize(self.tokenizer, texts, min(self.tokenizer.model_max_length, 10**6))
        with torch.no_grad():
            found = self.model.generate(**words, num_beams=NUM_BEAMS, **into)
        return self.tokenizer.batch_decode(found, skip_special_tokens=True)


def load_transformers_translator(place: str) -> TransformersTranslator:
    """Loads a model by hub id or folder; `PLACE#de` says that the sources are German.

    Raises:
        ValueError: the model needs the source's language and none is given.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    name, _, language = place.partition("#")
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    model = AutoModelForSeq2SeqLM.from_pretrained(
        name, use_safetensors=True, trust_remote_code=False
    ).eval()
    code = None
    if hasattr(tokenizer, "src_lang"):
        if not language:
            raise ValueError(
                f"{name} needs the language that it translates from: transformers:{name}#de"
            )
        is_flores = tokenizer.convert_tokens_to_ids(FLORES["en"]) != tokenizer.unk_token_id
        code = FLORES.get(language, language) if is_flores else language
    return TransformersTranslator(model, tokenizer, code)


class TranslatingPipeline:
    """An English pipeline whose prompts are translated first; otherwise the pipeline itself."""

    def __init__(self, pipe: Any, translate: Translator):
        """Keeps both."""
        self.pipe, self.translate = pipe, translate

    def __call__(self, prompt: str | list[str], **settings: Any) -> Any:
        """Draws the translation of `prompt`; a negative prompt is translated too."""
        from crosslingual.frozen.families import call_options
        from crosslingual.frozen.tokens import cut_as, report_cut

        originals: dict[str, str] = {}
        for name, given in {"prompt": prompt, **settings}.items():
            if name in ("prompt", "negative_prompt") and given:
                texts = [given] if isinstance(given, str) else given
                english = self.translate(texts)
                originals |= zip(english, texts, strict=True)
                settings[name] = english[0] if isinstance(given, str) else english
        with cut_as(originals), report_cut(self.pipe):
            return self.pipe(**{**call_options(self.pipe), **settings})

    def __getattr__(self, name: str) -> Any:
        """All other attributes are the English pipeline's."""
        return getattr(self.__dict__["pipe"], name)


class TranslatingEmbedder:
    """An English CLIP whose texts are translated first."""

    def __init__(self, clip: Any, translate: Translator):
        """Keeps both."""
        self.clip, self.translate = clip, translate

    def embed_text(self, texts: list[str]) -> Any:
        """Unit rows (B, D), fp32."""
        from crosslingual.frozen.tokens import cut_as

        english = self.translate(texts)
        with cut_as(dict(zip(english, texts, strict=True))):
            return self.clip.embed_text(english)

    def embed_image(self, images: list[Any]) -> Any:
        """Unit rows (B, D), fp32."""
        return self.clip.embed_image(images)


def load_pipeline(path: str, base: str | None = None) -> TranslatingPipeline:
    """The pipeline of a base behind a translator (`KIND:FOLDER`)."""
    from crosslingual.frozen.base import Base

    return TranslatingPipeline(
        Base.open(base or "testbed:sd").load_pipeline(), load_translator(path)
    )


def load_embedder(path: str) -> TranslatingEmbedder:
    """An English CLIP behind a translator, named as `KIND:FOLDER@CLIP`; testbed:clip if not given.

    Raises:
        ValueError: no such translator.
    """
    from crosslingual_benchmarks.retrieval.embedders import load_embedder as load_any

    translator, _, clip = path.partition("@")
    return TranslatingEmbedder(
        load_any("clip", clip or "testbed:clip"), load_translator(translator)
    )
