"""The verbs of the command `mclip`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from crosslingual.cli.verbs import Verb

if TYPE_CHECKING:
    from mclip.settings import ExportSettings, FeaturesSettings, TrainSettings
    from mclip.stage1.settings import TrainEncoderSettings

DESCRIPTION = (
    "mCLIP (ACL 2023): CLIP reads other languages through two projectors, taught by a triangle of\n"
    "picture, English text and multilingual text, after a stage on parallel text alone.\n"
    "A verb's settings come from --config FILE.yaml and flags, which override it."
)
_S, _S1 = "mclip.settings", "mclip.stage1.settings"
VERBS = {
    "demo": Verb(
        "run the whole method on the embedded models, in minutes",
        "crosslingual.cli.demo:run_demo",
        f"{_S}:DemoSettings",
    ),
    "tokenize": Verb(
        "turn parallel text into token arrays, once",
        "mclip.stage1.tokens:tokenize",
        f"{_S1}:TokenizeSettings",
    ),
    "train-encoder": Verb(
        "stage 1: enhance XLM-R on parallel text",
        "mclip.stage1.train:train_encoder",
        f"{_S1}:TrainEncoderSettings",
    ),
    "translate": Verb(
        "translate sentences by stage 1's model",
        "mclip.stage1.translate:translate",
        f"{_S1}:TranslateSettings",
    ),
    "evaluate-text": Verb(
        "measure the retrieval of sentences between languages",
        "mclip.stage1.evaluate:evaluate_text",
        f"{_S1}:EvaluateTextSettings",
    ),
    "features": Verb(
        "pass shards through the frozen parts, once",
        "mclip.verbs:features",
        f"{_S}:FeaturesSettings",
    ),
    "train": Verb(
        "stage 2: train the projectors by TriKD", "mclip.train:train", f"{_S}:TrainSettings"
    ),
    "export": Verb(
        "write a checkpoint's projectors as safetensors",
        "mclip.verbs:export",
        f"{_S}:ExportSettings",
    ),
    "import": Verb(
        "write a published state dict as a model",
        "mclip.published:import_published",
        f"{_S}:ImportSettings",
    ),
    "evaluate": Verb(
        "measure Recall@K of pictures and texts by language",
        "mclip.retrieval.evaluate:evaluate",
        f"{_S}:EvaluateSettings",
    ),
    "table": Verb(
        "print the recall of several models side by side",
        "mclip.retrieval.evaluate:table",
        f"{_S}:TableSettings",
    ),
    "embed": Verb(
        "embed pictures or texts for an index", "mclip.retrieval.embed:embed", f"{_S}:EmbedSettings"
    ),
    "search": Verb(
        "find the pictures that answer a query in any language",
        "mclip.retrieval.search:search",
        f"{_S}:SearchSettings",
    ),
    "info": Verb(
        "count parameters and memory, from shapes alone",
        "mclip.verbs:info",
        f"{_S}:TrainSettings",
        takes_any_config=True,
    ),
}


def features(settings: "FeaturesSettings") -> Path:
    """Writes the features of `shards` to `features_dir`; a second run goes on where the first one
    stopped.
    """
    from crosslingual.features.compute import write_run_features
    from crosslingual.training.processes import start_processes
    from mclip.data import RetrievalParts

    ranks = start_processes()
    return write_run_features(settings, RetrievalParts(settings, ranks.device), ranks)


def export(settings: "ExportSettings") -> Path:
    """Writes the projectors of a checkpoint as a folder of safetensors."""
    from crosslingual.adapter.artifact import claim_artifact
    from crosslingual.cli.settings import read_settings
    from crosslingual.training.checkpoint import find_checkpoint, settings_file, trained_state
    from mclip.artifact import model_config, save_model
    from mclip.settings import TrainSettings

    checkpoint = find_checkpoint(settings.checkpoint)
    folder, is_bundled = settings.output_dir, settings.bundle_encoder
    with claim_artifact(folder, "mclip"):
        config = model_config(read_settings(TrainSettings, settings_file(checkpoint)))
        folder = save_model(trained_state(checkpoint), config, folder, bundle_encoder=is_bundled)
    print(folder)
    return folder


def info(settings: "TrainSettings | TrainEncoderSettings") -> dict[str, int]:
    """Trainable and total parameters and the memory that training takes, printed and returned."""
    from mclip.settings import TrainSettings

    if isinstance(settings, TrainSettings):
        return _count_trikd(settings)
    return _count_translation(settings)


def _count_trikd(settings: "TrainSettings") -> dict[str, int]:
    import torch

    from crosslingual.frozen.clip import clip_on_meta
    from crosslingual.frozen.encoders import encoder_on_meta, encoder_shape, existing_encoder
    from crosslingual.frozen.memory import estimate, print_info
    from mclip.artifact import projector_shape
    from mclip.method import TriKD

    clip, revision = settings.clip, settings.text_encoder_revision
    encoder = existing_encoder(settings.text_encoder, settings.starts_from)
    shape = projector_shape(replace(settings, text_encoder=encoder))
    with torch.device("meta"):
        trikd = TriKD(shape)
    rows, tokens = settings.train_batch_size, settings.max_length
    tokens = tokens or encoder_shape(encoder, revision)[1]

    def forward(dtype: torch.dtype) -> None:
        like = {"dtype": dtype, "device": "meta"}
        embeds = torch.empty(2, rows, shape["clip_width"], **like)
        states = torch.empty(rows * tokens, shape["width"], **like)
        trikd(*embeds, states, torch.full((rows,), tokens, device="cpu"), settings.embed_batch_size)

    frozen = {
        f"CLIP {clip}": clip_on_meta(clip, settings.clip_revision),
        f"encoder {encoder}": encoder_on_meta(encoder, revision),
    }
    title = (
        f"{clip} and {encoder} meet at width {shape['width']}; training from features loads the "
        f"projectors alone. Captions are counted with {tokens} tokens each, the most."
    )
    return print_info(title, estimate(trikd, forward, settings), frozen, trains="projectors")


def _count_translation(settings: "TrainEncoderSettings") -> dict[str, int]:
    import torch

    from crosslingual.adapter.artifact import load_artifact_config
    from crosslingual.frozen.encoders import encoder_config, encoder_of, existing_encoder
    from crosslingual.frozen.memory import estimate, print_info
    from mclip.stage1.artifact import translation_config
    from mclip.stage1.method import TranslationModel, set_trainable

    folder = settings.translation_model
    if folder is not None and Path(folder).is_dir():
        config = load_artifact_config(folder)
        encoder = f"{folder}/{config['encoder']}"
    else:  # an earlier step has not made it yet
        config = translation_config(settings, ["en"])
        encoder = existing_encoder(settings.text_encoder, settings.starts_from)
    shape = encoder_config(encoder, settings.text_encoder_revision)
    with torch.device("meta"):
        model = TranslationModel(encoder_of(shape), config)
    set_trainable(model, settings.step)
    rows, vocabulary = settings.train_batch_size, shape.vocab_size
    tokens = settings.max_length or min(shape.max_position_embeddings - 2, 256)
    directions = 1 + settings.both_ways

    def forward(dtype: torch.dtype) -> None:
        ids = torch.empty(rows, tokens, dtype=torch.long, device="meta")
        for number in range(2 if settings.step == "b" else directions):
            states = model.encode(ids, None)
            if number < directions:
                model.decode(states, None, ids, config["languages"][0])

    # transformers looks for padding in a mask, which has no values on the meta device
    with mock.patch("transformers.masking_utils.fast_all", return_value=True):
        found = estimate(model, forward, settings)
    scores = 2 * 4 * settings.chunk_tokens * vocabulary
    found = replace(found, activations=found.activations + scores)
    is_b = settings.step == "b"
    title = (
        f"step {settings.step} on {encoder}; target languages {len(config['languages'])}, each "
        f"further one with {shape.hidden_size * (shape.hidden_size + 1):,} parameters more. "
        f"Sentences are counted with {tokens} tokens each, the most"
        f"{', and scores over all tokens' if settings.output_vocabulary == 'text' else ''}."
    )
    frozen = {"embeddings of XLM-R" if is_b else "XLM-R": found.frozen}
    trains = "XLM-R's layers, decoder and maps" if is_b else "decoder and maps"
    return print_info(title, found, frozen, trains=trains)
