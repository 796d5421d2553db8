"""The table of text accuracy that a method's `evaluate` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from crosslingual.evaluation.generation import AS_IS


def render_table(
    result: Mapping[str, Any],
    heads: Mapping[str, str],
    kind: str | None,
    note: str,
    groups: Mapping[str, Sequence[str]],
) -> str:
    """Text accuracy in Markdown: a row a language, two columns an arm, called by `heads`, or three
    where the judge ranks scenes. `groups` are languages whose means have rows; the other arguments
    are those of `Evaluation.evaluate_pipelines`.
    """
    english, rows, near = result["english"], result["languages"], result.get("at_5")

    def line(
        head: str,
        training: str,
        as_is: float | None,
        shares: Sequence[float | None],
        at_5: Sequence[float | None],
    ) -> str:
        cells = [head] if kind is None else [head, training]
        cells.append("" if as_is is None else f"{as_is:.2f}")
        for share, share_at_5 in zip(shares, at_5, strict=True):
            cells.append("" if share is None else f"{share:.2f}")
            if near is not None:
                cells.append("" if share_at_5 is None else f"{share_at_5:.2f}")
            cells.append("" if share is None or not english else f"{share / english:.0%}")
        return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)

    further = "" if near is None else " | at 5"
    columns = "".join(f" | {head}{further} | of English" for head in heads.values())
    nothing: list[None] = [None] * len(heads)
    lines = [
        "",
        "Text accuracy: share of pictures that show all the prompt says, read by the judge",
        "",
        f"| language |{'' if kind is None else ' training |'} as-is{columns} |",
        f"|---|{'' if kind is None else '---|'}---:|"
        + ("---:|---:|" if near is None else "---:|---:|---:|") * len(heads),
    ]
    if english is not None:
        lines.append(line("en (upper bound)", "", english, nothing, nothing))
    for language, row in rows.items():
        training = kind if language in result["trained"] else "none (zero-shot)"
        at_5 = nothing if near is None else [near[language][name] for name in heads]
        shares = [row[name] for name in heads]
        lines.append(line(language, training, row.get(AS_IS), shares, at_5))
    for name, members in groups.items():
        if kind is not None and members:
            means = [sum(rows[n][arm] for n in members) / len(members) for arm in heads]
            at_5 = nothing
            if near is not None:
                at_5 = [sum(near[n][arm] for n in members) / len(members) for arm in heads]
            lines.append(line(f"mean of {name}", "", None, means, at_5))
    return "\n".join([*lines, "", note, ""])
