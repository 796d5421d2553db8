"""The command `crosslingual`: pictures and captions into shards, and a look into them; exported
folders to the hub.

    crosslingual shards --source world --num_samples 2000 --languages en de --output_dir shards
    crosslingual inspect shards
    crosslingual push runs/pea/adapter --hub_model_id NAME/MODEL

A verb is a line in `VERBS`.
"""

from collections.abc import Sequence

from crosslingual.cli.verbs import Verb, run_verbs

VERBS = {
    "shards": Verb(
        "write pictures and captions as WebDataset shards",
        "crosslingual.cli.shards:write",
        "crosslingual.cli.shards:ShardsSettings",
    ),
    "inspect": Verb(
        "say what shards hold: counts, languages, key names",
        "crosslingual.cli.shards:survey",
        "crosslingual.cli.shards:InspectSettings",
        positional="shards",
    ),
    "url-table": Verb(
        "make of CC3M or CC12M the table that img2dataset takes",
        "crosslingual.cli.url_table:url_table",
        "crosslingual.cli.url_table:UrlTableSettings",
    ),
    "encoder": Verb(
        "convert a published text encoder: encoder convert --input ID_OR_FOLDER --output_dir DIR",
        "crosslingual.cli.encoder:run",
        "crosslingual.cli.encoder:EncoderSettings",
        positional="action",
    ),
    "push": Verb(
        "upload an exported folder to the hub",
        "crosslingual.adapter.hub:push",
        "crosslingual.adapter.hub:PushSettings",
        positional="folder",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command's entry point."""
    return run_verbs("crosslingual", "Data for cross-lingual image generation.", VERBS, argv)


if __name__ == "__main__":
    raise SystemExit(main())
