"""The command as a person meets it."""

from crosslingual_worlds.testing import conformance

EMPTY = {"validation_steps": 2, "validation_data": "{tmp}/empty"}
STALE = {
    "train_data": "{shards}",
    "english_draws": 1,
    "validation_steps": 2,
    "validation_data": "{features}",
}
CUT = {"objective": "text", "train_data": "{shards}", "max_length": 8}


class TestCommand(conformance.Command):
    verbs = "demo features train export merge generate evaluate ablate info"
    typo = ("target_languag", "target_language")
    mistakes = (
        ({"target_language": []}, "target_language is not set: .* --target_language zh"),
        (
            {"train_data": "{shards}", "target_language": ["ja"]},
            "no sample has captions in .ja.; there are captions in de, en, fr",
        ),
        (EMPTY, "no complete features in"),
        (STALE, "are stale: english_draws was None and is 1"),
        (CUT, "set --max_length 16"),
        ({"english_draws": 1}, "are stale: english_draws was None and is 1"),
        ({"text_encoder": "{sd}/text_encoder"}, "is a clip_text_model: IAP starts from an XLM-R"),
        ({"layers": ["left"]}, "no cross-attention 'left': layers are all, down, mid, up, or 0"),
        ({"noise_weight": 1.0}, "noise_weight needs --branch full"),
        ({"rehearsal": 0.1}, "rehearsal draws captions in en: add en to --target_language"),
        ({"branch": "both"}, "setting 'branch' must be local or full, not 'both'"),
    )
    nan_parts = "attention nan"
    pickle = "are pickles, which are not read here"
    other_base = ("sdxl", "use the adapter's base")
    num_trainable = 5880 + 2 * 12 + 12 * 16 + 16  # of the miniature XLM-R, and of the head


class TestPages(conformance.Pages):
    runs = {"iap info": "", "iap --help": ""}
