"""The table of text accuracy that a method's `evaluate` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from crosslingual.evaluation.generation import AS_IS


def render_table(
    result: Mapping[str, Any], heads: Mapping[str, str], kind: str | None, note: str
) -> str:
    """Text accuracy in Markdown: a row a language, two columns an arm, called by `heads`; the other
    arguments are those of `Evaluation.evaluate_pipelines`.
    """
    english, rows = result["english"], result["languages"]

    def line(head: str, training: str, as_is: float | None, shares: Sequence[float | None]) -> str:
        cells = [head] if kind is None else [head, training]
        cells.append("" if as_is is None else f"{as_is:.2f}")
        for share in shares:
            cells.append("" if share is None else f"{share:.2f}")
            cells.append("" if share is None or not english else f"{share / english:.0%}")
        return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)

    columns = "".join(f" | {head} | of English" for head in heads.values())
    lines = [
        "",
        "Text accuracy: share of pictures that show all the prompt says, read by the judge",
        "",
        f"| language |{'' if kind is None else ' training |'} as-is{columns} |",
        f"|---|{'' if kind is None else '---|'}---:|" + "---:|---:|" * len(heads),
    ]
    if english is not None:
        lines.append(line("en (upper bound)", "", english, [None] * len(heads)))
    for language, row in rows.items():
        training = kind if language in result["trained"] else "none (zero-shot)"
        lines.append(line(language, training, row.get(AS_IS), [row[name] for name in heads]))
    for name, is_trained in (("trained", True), ("zero-shot", False)):
        chosen = [
            row
            for language, row in rows.items()
            if (language in result["trained"]) == is_trained and language != "en"
        ]
        if kind is not None and chosen:
            means = [sum(row[arm] for row in chosen) / len(chosen) for arm in heads]
            lines.append(line(f"mean of {name}", "", None, means))
    return "\n".join([*lines, "", note, ""])
