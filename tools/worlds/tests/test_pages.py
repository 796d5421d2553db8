"""The pages of shared and of the worlds, and the functions that read commands on pages."""

from pathlib import Path

import pytest

from crosslingual_worlds.testing.conformance.pages import (
    check_command,
    check_page,
    commands_in_head,
    commands_on,
    help_of,
    without_launcher,
)

ROOT = Path(__file__).parents[3]

PAGE = """
Text with `pea train --inline`.

```bash
VARIABLE=1 torchrun --nproc_per_node 2 -m pea train \\
  --config my.yaml   # a reason
pip install -e a && pytest b
```

```
$ pea info --config configs/a.yaml
part        parameters
```

    crosslingual inspect data

```python
pea = 1
```
"""


def test_commands_are_read_from_fences_prompts_and_indented_lines() -> None:
    assert commands_on(PAGE) == [
        "VARIABLE=1 torchrun --nproc_per_node 2 -m pea train --config my.yaml",
        "pip install -e a",
        "pytest b",
        "pea info --config configs/a.yaml",
        "crosslingual inspect data",
    ]
    head = (
        "# What it's for:\n#\n#   pea features \\\n#     --config a.yaml\n#\n# No pea here.\nx: 1\n"
    )
    assert commands_in_head(head, ("pea",)) == ["pea features --config a.yaml"]


@pytest.mark.parametrize(
    "line",
    [
        "torchrun --nproc_per_node 8 -m pea train --config a",
        "deepspeed --num_gpus 8 --module pea train --config a",
        "OMP_NUM_THREADS=1 python -m pea train --config a",
        "pea train --config a",
    ],
)
def test_launchers_are_taken_off(line: str) -> None:
    assert without_launcher(line.split()) == ["pea", "train", "--config", "a"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("crosslingual shards --sauce world", "shards has no --sauce"),
        ("crosslingual inspect data", None),
        ("curl somewhere", "no check for curl"),
        ("bash tools/nothing.sh", "no tools/nothing.sh"),
        ("pip install -e 'tools/worlds[nothing]'", "nothing"),
    ],
)
def test_a_command_that_would_fail_is_named(line: str, message: str | None) -> None:
    ours = {"crosslingual": lambda program, verb: "--source NAME --output_dir DIR"}
    if message is None:
        check_command(line, ROOT / "shared", ours)
        return
    with pytest.raises(AssertionError, match=message):
        check_command(line, ROOT / "shared", ours)


@pytest.mark.parametrize("page", ["shared/README.md", "tools/worlds/README.md"])
def test_commands_on_a_page_exist_with_their_settings_and_files(page: str) -> None:
    check_page(ROOT / page, {"crosslingual": help_of}, {})
