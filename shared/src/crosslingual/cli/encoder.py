"""The verb `encoder` of the command `crosslingual`: published text encoders as plain folders."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class EncoderSettings:
    """Settings of `crosslingual encoder convert`.

    Attributes:
        action: convert, which takes the text encoder out of a published model.
        input: folder or hub id of the model.
        output_dir: folder that gets config, safetensors, tokenizer and model card.
        revision: git revision of the hub entry.
        variant: of the weights, such as fp16, where the model has several files.
    """

    action: Literal["convert"]
    input: str
    output_dir: str
    revision: str | None = None
    variant: str | None = None


def run(settings: EncoderSettings) -> None:
    """Converts, and prints what was taken and what was left out; errors as `convert`."""
    from crosslingual.frozen.convert import convert

    made = convert(settings.input, settings.output_dir, settings.revision, settings.variant)
    left = ", ".join(f"{start} ({count})" for start, count in made.left.items()) or "nothing"
    print(f"took the text encoder out of {made.title}; left out: {left}")
    print(f"wrote {made.folder}: give it as --text_encoder; it reads {made.max_length} tokens")
