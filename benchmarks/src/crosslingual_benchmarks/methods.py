"""The installed methods, found by the entry point group `crosslingual.methods`; none is imported by
name, so that a new one needs no change here.
"""

from importlib import metadata

from crosslingual.cli.settings import nearest_name
from crosslingual.method import Method

GROUP = "crosslingual.methods"


def installed_methods() -> dict[str, Method]:
    """Every installed method by its name, sorted.

    Raises:
        ValueError: an entry point names something else, or two packages register one name.
    """
    found: dict[str, Method] = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        method = entry.load()
        if not isinstance(method, Method):
            raise ValueError(
                f"entry point {entry.name!r} of {GROUP} names {entry.value}, which is no "
                "crosslingual.method.Method; correct it in that package's pyproject.toml"
            )
        if entry.name in found and found[entry.name] != method:
            raise ValueError(f"two packages register a method {entry.name!r}; uninstall one")
        found[entry.name] = method
    return found


def find_method(name: str) -> Method:
    """The installed method of a name.

    Raises:
        ValueError: it is not installed; the message names the installed ones.
    """
    methods = installed_methods()
    if name not in methods:
        there = ", ".join(methods) or "none"
        raise ValueError(
            f"no method {name!r} is installed{nearest_name(name, list(methods)) or ';'} installed: "
            f"{there}; pip install -e methods/NAME adds one"
        )
    return methods[name]
