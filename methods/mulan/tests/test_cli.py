"""The command as a person meets it."""

from crosslingual_worlds.testing import conformance

WIDTH, ENCODER_WIDTH, QUERIES = 16, 12, 16
LAYERS = (12 * WIDTH**2 + 13 * WIDTH) + (16 * WIDTH**2 + 19 * WIDTH) + 4 * WIDTH
PROJECTION = ENCODER_WIDTH * WIDTH + WIDTH + WIDTH**2 + WIDTH


class TestCommand(conformance.Command):
    verbs = "demo features train export import generate evaluate info"
    mistakes = (
        ({"alignment": "both", "num_queries": 9}, "use --num_queries 16, not 9"),
        ({"alignment": "both", "english_states": False}, "use --english_states true"),
        ({"english_states": False}, "are stale: with_english was None and is False"),
        ({"train_data": "{plain}"}, "holds no English states: make the features anew, or add"),
        ({"null_policy": "zeros"}, "null_policy zeros is SDXL's"),
        ({"replace_add_embedding": True}, "use an SDXL base and --alignment image or both"),
        ({"num_heads": 3}, "num_heads 3 does not divide"),
        ({"pretrained_model_name_or_path": "{pixart}"}, "use --alignment image --english_states"),
        ({"init_adapter": "{tmp}/nowhere"}, "no adapter .*nowhere; export one first"),
    )
    nan_parts = "image nan"
    other_base = ("sdxl", "use the adapter's base")
    num_trainable = PROJECTION + QUERIES * WIDTH + LAYERS


class TestPages(conformance.Pages):
    runs = {"mulan info": "", "mulan --help": ""}
