"""Full fine-tuning on miniatures, and translate-test around models that record what they get."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from crosslingual.data.shards import write_shards
from crosslingual.frozen.clip import load_clip
from crosslingual.frozen.tokens import on_cut
from crosslingual_benchmarks.baselines import (
    FULL_FINETUNING,
    ROUTER,
    TRANSLATE_TEST,
    translate_test,
)
from crosslingual_benchmarks.baselines.full_finetuning import (
    build_joint,
    build_text_encoder,
)
from crosslingual_benchmarks.baselines.router import RoutedPipeline
from crosslingual_benchmarks.baselines.settings import FinetuneSettings
from crosslingual_benchmarks.baselines.translate_test import (
    TranslatingEmbedder,
    TranslatingPipeline,
    load_translator,
)
from crosslingual_benchmarks.methods import installed_methods
from crosslingual_worlds.drawn.source import world
from crosslingual_worlds.testing.miniatures import write_encoder, write_sd


def run(verb, **settings):
    """Runs a verb in a process of its own."""
    words = [sys.executable, "-m", "crosslingual_benchmarks", verb]
    for name, value in settings.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a miniature base and encoder, features, and a run of six steps."""
    folder = tmp_path_factory.mktemp("full")
    base, encoder = write_sd(folder / "base"), write_encoder(folder / "encoder")
    languages = ["en", "de"]
    write_shards(world(languages=languages, num_samples=16), folder / "shards")
    models = {"pretrained_model_name_or_path": base, "text_encoder": encoder}
    models |= {"languages": languages, "resolution": 64}
    run("finetune-features", shards=folder / "shards", features_dir=folder / "features", **models)
    recipe = {**models, "train_batch_size": 4, "max_train_steps": 6, "lr_warmup_steps": 1}
    recipe |= {"checkpointing_steps": 3, "learning_rate": 3e-3, "train_data": folder / "features"}
    run("finetune", output_dir=folder / "run", **recipe)
    return SimpleNamespace(folder=folder, recipe=recipe, base=base, encoder=encoder)


def losses_of(run_folder):
    """The loss of each step."""
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return {json.loads(line)["step"]: json.loads(line)["loss"] for line in lines}


def test_resuming_takes_the_very_same_steps(trained):
    again = trained.folder / "again"
    place = trained.folder / "run" / "checkpoint-3"
    run("finetune", output_dir=again, resume_from_checkpoint=place, **trained.recipe)
    expected, found = losses_of(trained.folder / "run"), losses_of(again)
    assert set(expected) == {1, 2, 3, 4, 5, 6} and set(found) == {4, 5, 6}
    assert all(found[step] == expected[step] for step in found)


def test_unet_and_text_encoder_train_whole_and_stock_diffusers_loads_them(trained):
    settings = FinetuneSettings(
        pretrained_model_name_or_path=trained.base, text_encoder=trained.encoder
    )
    start = dict(build_joint(settings).named_parameters())
    pipe = FULL_FINETUNING.load_pipeline(str(trained.folder / "run" / "pipeline"), None)
    ends = {f"unet.{name}": p for name, p in pipe.unet.named_parameters()}
    ends |= {f"text_encoder.{name}": p for name, p in pipe.text_encoder.named_parameters()}
    assert set(ends) == set(start)
    # what a gradient reaches moves, but for rows that no token or position of this data reads
    still = [name for name in start if torch.equal(start[name], ends[name])]
    assert still == []
    manifest = json.loads((trained.folder / "run" / "checkpoint-6" / "checkpoint.json").read_text())
    assert set(manifest["trainable"]) == set(start)
    assert pipe("ein Stern", num_inference_steps=2, output_type="np").images.shape == (1, 32, 32, 3)


def test_word_embeddings_stay_if_asked(trained):
    place = trained.folder / "words"
    changes = {"train_embeddings": False, "max_train_steps": 2, "checkpointing_steps": 2}
    run("finetune", output_dir=place, **trained.recipe | changes)
    settings = FinetuneSettings(
        pretrained_model_name_or_path=trained.base, text_encoder=trained.encoder
    )
    start = build_joint(settings).text_encoder.get_input_embeddings().weight
    before, after = (
        FULL_FINETUNING.load_pipeline(str(folder / "pipeline"), None).text_encoder
        for folder in (trained.folder / "run", place)
    )
    assert torch.equal(after.get_input_embeddings().weight, start)
    assert not torch.equal(before.get_input_embeddings().weight, start)
    assert len(after.state_dict()) == len(before.state_dict())


def test_an_exported_checkpoint_is_the_pipeline_that_training_wrote(trained):
    place = trained.folder / "exported"
    run("finetune-export", checkpoint=trained.folder / "run", output_dir=place)
    written, exported = (
        FULL_FINETUNING.load_pipeline(str(folder), None)
        for folder in (trained.folder / "run" / "pipeline", place)
    )
    for part in ("unet", "text_encoder"):
        states = [getattr(pipe, part).state_dict() for pipe in (written, exported)]
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_the_mask_reaches_the_encoder_through_the_pipeline(trained):
    pipe = FULL_FINETUNING.load_pipeline(str(trained.folder / "run" / "pipeline"), None)
    assert pipe.text_encoder.config.use_attention_mask is True
    assert pipe.tokenizer.model_max_length <= 77


def test_full_finetuning_starts_from_xlm_r_alone(trained):
    with pytest.raises(ValueError, match="starts from XLM-R"):
        build_text_encoder(f"{trained.base}/text_encoder", 16)


def test_a_prompt_is_translated_and_what_else_is_asked_goes_to_the_pipeline():
    seen = {}

    class Pipe:
        components = {}

        scheduler = "its scheduler"

        def __call__(self, **given):
            seen.update(given)
            return "pictures"

    pipe = TranslatingPipeline(Pipe(), lambda texts: [text.upper() for text in texts])
    assert pipe(["ein stern", "ein ring"], guidance_scale=3.0, negative_prompt="blau") == "pictures"
    expected = {"prompt": ["EIN STERN", "EIN RING"], "negative_prompt": "BLAU"}
    assert seen == {**expected, "guidance_scale": 3.0}
    pipe("ein stern")
    assert seen["prompt"] == "EIN STERN"
    assert pipe.scheduler == "its scheduler"
    with pytest.raises(AttributeError):
        _ = pipe.nothing


def test_a_translation_that_is_cut_counts_for_its_prompt():
    tokenizer = load_clip("testbed:clip").tokenizer

    class Pipe:
        def __init__(self):
            self.tokenizer, self.components = tokenizer, {"tokenizer": tokenizer}

        def __call__(self, prompt):
            self.tokenizer(prompt, truncation=True, max_length=9)

    cuts = []
    with on_cut(cuts.append):
        TranslatingPipeline(Pipe(), lambda texts: ["a " * 20, "b"])(["ein langer", "zwei"])
    assert [cut.text for cut in cuts] == ["ein langer"]


class Painter:
    """A pipeline that draws what it is, and for which noise."""

    def __init__(self, name):
        self.name, self.components, self.calls = name, {"tokenizer": None}, []

    def __call__(self, prompt, generator, **settings):
        self.calls.append((prompt, settings))
        pairs = zip(prompt, generator, strict=True)
        return SimpleNamespace(images=[(self.name, *pair) for pair in pairs])


def test_a_router_sends_each_prompt_with_its_noise_where_its_script_is_read():
    pipes = {"a": Painter("a"), "b": Painter("b")}
    routed = RoutedPipeline(pipes, {"a": ["de", "en"], "b": ["ja"]})
    drawn = routed(["ein Stern", "赤い星", "a star"], generator=[1, 2, 3], height=64)
    assert drawn.images == [("a", "ein Stern", 1), ("b", "赤い星", 2), ("a", "a star", 3)]
    assert pipes["a"].calls == [(["ein Stern", "a star"], {"height": 64})]
    assert set(routed.components) == {"0_tokenizer", "1_tokenizer"} and routed.name == "a"


def test_pipelines_inside_are_called_with_what_their_family_needs(monkeypatch):
    needed = {"max_sequence_length": 8, "height": 32}
    monkeypatch.setattr("crosslingual.frozen.families.call_options", lambda pipe: needed)
    inside = Painter("a")
    routed = RoutedPipeline({"a": inside}, {"a": ["de"]})
    translated = TranslatingPipeline(inside, lambda texts: texts)
    routed(["ein Stern"], generator=[1], height=64)
    translated(["ein Stern"], generator=[1], height=64)
    asked = {"max_sequence_length": 8, "height": 64}  # what is asked for comes first
    assert inside.calls == [(["ein Stern"], asked)] * 2


def test_a_router_needs_exports_to_choose_from():
    with pytest.raises(ValueError, match="give METHOD:FOLDER,FOLDER"):
        ROUTER.load_pipeline("pea:one", None)


def test_texts_are_translated_before_clip_and_pictures_are_not():
    clip = SimpleNamespace(embed_text=lambda texts: texts, embed_image=lambda images: images)
    embedder = TranslatingEmbedder(clip, lambda texts: [f"en {text}" for text in texts])
    assert embedder.embed_text(["a", "b"]) == ["en a", "en b"]
    assert embedder.embed_image(["p"]) == ["p"]


def test_a_translator_is_found_by_its_kind(monkeypatch):
    entry = SimpleNamespace(name="upper", load=lambda: lambda place: lambda texts: [place, *texts])
    monkeypatch.setattr(translate_test, "entry_points", lambda group: [entry])
    assert load_translator("upper:somewhere")(["a"]) == ["somewhere", "a"]
    for wrong in ("lower:x", "upper", "upper:"):
        with pytest.raises(ValueError, match="give KIND:FOLDER with one of transformers, upper"):
            load_translator(wrong)


def test_a_model_that_needs_the_sources_language_says_so(monkeypatch):
    import transformers

    tokenizer = SimpleNamespace(src_lang="eng_Latn", unk_token_id=0)
    tokenizer.convert_tokens_to_ids = lambda token: 7
    loaders = ("AutoTokenizer", tokenizer), ("AutoModelForSeq2SeqLM", torch.nn.Linear(1, 1))
    for name, made in loaders:
        fake = SimpleNamespace(from_pretrained=lambda place, made=made, **options: made)
        monkeypatch.setattr(transformers, name, fake)
    with pytest.raises(ValueError, match="transformers:nllb#de"):
        load_translator("transformers:nllb")
    assert load_translator("transformers:nllb#de").language == "deu_Latn"


def test_the_baselines_are_found_as_the_methods_are():
    installed = installed_methods()
    assert installed["full_finetuning"] == FULL_FINETUNING
    assert installed["translate_test"] == TRANSLATE_TEST
