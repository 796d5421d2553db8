"""A folder of pictures with `metadata.jsonl`: the `imagefolder` of diffusers and datasets."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from crosslingual.data.records import Record, make_key, record_from_fields
from crosslingual.data.text import iter_json_lines


def folder(
    input: str,
    *,
    key_map: Mapping[str, str] | None = None,
    caption_language: str = "en",
) -> Iterator[Record]:
    """Reads lines `{"file_name": ..., "text": ...}` or `{"file_name": ..., "captions": {...}}`.

    A line may also hold `parallel`, `culture`, and anything else, which is kept as `extra`.

    Args:
        input: folder of metadata.jsonl; its file names are relative to it.
        key_map: JSON keys and their languages (text_de=de), for captions in columns of their own.
        caption_language: language of `text`.

    Raises:
        FileNotFoundError: there is no `metadata.jsonl`.
        ValueError: a line is malformed; it is named.
    """
    path = Path(input) / "metadata.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}; write one line per picture: "
            '{"file_name": "a.jpg", "captions": {"en": ["..."], "de": ["..."]}}'
        )
    for number, fields in iter_json_lines(path):
        file_name = fields.pop("file_name", None)
        if not isinstance(file_name, str):
            raise ValueError(f"{path} line {number} has no 'file_name'")
        text = None if "captions" in fields or key_map else fields.pop("text", None)
        try:
            yield record_from_fields(
                make_key(file_name),
                path.parent / file_name,
                fields,
                text=text,
                key_map=key_map,
                caption_language=caption_language,
            )
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
