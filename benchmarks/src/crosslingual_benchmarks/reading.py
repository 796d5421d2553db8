"""Checks what is read from disk, where it is read: JSON and YAML values against a type."""

from functools import cache
from typing import Any

from crosslingual.data.text import printable

_WORDS = {
    "a valid number": "a number",
    "a valid integer": "a whole number",
    "a valid string": "a text",
    "a valid list": "a list",
    "a valid dictionary": "an object",
}
"""pydantic's words for types, in the words of files."""


def check_shape(kind: Any, value: Any, where: str, *, strict: bool = True) -> Any:
    """The value as pydantic builds it by a type; `where` names the file and line in the error.

    A strict check takes no text for a number, for example. Keys that a typed dict does not name may
    hold anything.

    Raises:
        ValueError: the value, or a part of it, is of another type, missing or unknown.
    """
    import pydantic

    try:
        return _adapter(kind).validate_python(value, strict=strict)
    except pydantic.ValidationError as errors:
        found = errors.errors(include_url=False)  # a union has one for each alternative
        error = max(found, key=lambda each: len(each["loc"]))
    names, part = [], value
    for name in error["loc"]:
        is_inside = isinstance(part, list) if isinstance(name, int) else isinstance(part, dict)
        if is_inside and (isinstance(name, int) or name in part):  # else a union's alternative
            part = part[name]
            names.append(str(name))
    place = ".".join(names)
    if error["type"] == "missing":
        raise ValueError(f"{where} lacks {'.'.join([*names, str(error['loc'][-1])])}")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        raise ValueError(f"{where}: unknown {place}")
    text, wanted = repr(part), error["msg"].removeprefix("Input should be ")
    shown = text if len(text) < 60 else f"{text[:57]}..."
    raise ValueError(
        f"{where}: {place or 'the whole'} is {shown}, not {_WORDS.get(wanted, wanted)}"
    )


@cache
def _adapter(kind: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(kind)


def check_name(name: str, where: str) -> str:
    """A name that a folder inside of another can have.

    Raises:
        ValueError: it leads elsewhere, or holds characters that cannot be seen.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or printable(name) != name:
        raise ValueError(f"{where}: {name!r} cannot name a folder; choose another name")
    return name
