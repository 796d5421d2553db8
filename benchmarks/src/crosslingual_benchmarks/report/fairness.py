"""Whom a method leaves out: how accuracies are spread over languages, and what goes with them.

A language's facts are those of result lines: whether the encoder has read it, and its script.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MANY = 20
"""Foreign languages from which a spread is shown, and a table by language is a long one."""
TENTH = 10
HALF = 0.5
ROUNDING = 1e-12  # equal shares have a mean that may differ from them in the last bits

Facts = Mapping[str, Mapping[str, str]]
"""Languages to what result lines say of them."""


@dataclass(frozen=True)
class Spread:
    """A share, such as text accuracy, over foreign languages; None where it cannot be computed.

    Attributes:
        num_languages: how many they are.
        mean: over them.
        worst: the mean of the worst tenth of them, rounded up to whole languages.
        best: the mean of the best tenth.
        below_half: the share of the languages that have less than half of English.
        deviation: the standard deviation over them (of a population).
        known: Pearson's correlation, over the zero-shot languages, of the share with whether the
            encoder has read the language (1 or 0).
        script: the part of the zero-shot languages' variance that lies between scripts, adjusted
            for their number (epsilon squared, Kelley 1935): 0 on average where scripts make no
            difference, and it may be below.
    """

    num_languages: int
    mean: float
    worst: float
    best: float
    below_half: float | None
    deviation: float
    known: float | None
    script: float | None


def spread_of(
    values: Mapping[str, float], english: float | None, facts: Facts, trained: Iterable[str]
) -> Spread:
    """The spread of shares by foreign language.

    `english` is what the English model has on English prompts. `trained` languages count in all but
    `known` and `script`, which they would blur.

    Raises:
        ValueError: there is no language.
    """
    if not values:
        raise ValueError("no language to tell the spread of")
    ranked = sorted(values.values())
    tenth = math.ceil(len(ranked) / TENTH)
    zero_shot = {name: value for name, value in values.items() if name not in set(trained)}
    return Spread(
        num_languages=len(ranked),
        mean=_mean(ranked),
        worst=_mean(ranked[:tenth]),
        best=_mean(ranked[-tenth:]),
        below_half=None if english is None else _mean([v < HALF * english for v in ranked]),
        deviation=math.sqrt(_squares(ranked) / len(ranked)),
        known=correlation_with_known(zero_shot, facts),
        script=part_between(zero_shot, {name: f["script"] for name, f in facts.items()}),
    )


def correlation_with_known(values: Mapping[str, float], facts: Facts) -> float | None:
    """Pearson's correlation with whether the encoder has read a language; None where all values or
    all languages are alike.
    """
    told = {name: value for name, value in values.items() if name in facts}
    is_known = [float(facts[name]["encoder"] == "known") for name in told]
    both = _squares(is_known) * _squares(list(told.values()))
    if both < ROUNDING:
        return None
    middle, mean = _mean(is_known), _mean(list(told.values()))
    products = zip(is_known, told.values(), strict=True)
    return sum((x - middle) * (y - mean) for x, y in products) / math.sqrt(both)


def part_between(values: Mapping[str, float], group_of: Mapping[str, str]) -> float | None:
    """The part of the values' variance that lies between groups, adjusted for their number; None
    where there is one group, no group of several, or no variance.
    """
    groups: dict[str, list[float]] = {}
    for name, value in values.items():
        if name in group_of:
            groups.setdefault(group_of[name], []).append(value)
    told = [value for group in groups.values() for value in group]
    whole = _squares(told)
    if not 1 < len(groups) < len(told) or whole < ROUNDING:
        return None
    within = sum(map(_squares, groups.values()))
    return 1 - within / (len(told) - len(groups)) * (len(told) - 1) / whole


def kinds_of(
    languages: Sequence[str], facts: Facts, trained: Iterable[str]
) -> dict[str, list[str]]:
    """Foreign languages by what a method knew of them: trained, and zero-shot by whether the
    encoder has read them, where that is told. Empty kinds are left out.
    """
    held, kinds = set(trained), dict[str, list[str]]()
    words = {"known": "zero-shot, known to the encoder", "unknown": "zero-shot, unknown to it"}
    order = ["trained", *words.values(), "zero-shot"]
    for language in languages:
        if language != "en":
            encoder = facts.get(language, {}).get("encoder", "")
            kind = "trained" if language in held else words.get(encoder, "zero-shot")
            kinds.setdefault(kind, []).append(language)
    return {kind: kinds[kind] for kind in order if kind in kinds}


def scripts_and_families(
    languages: Sequence[str], facts: Facts, trained: Iterable[str]
) -> dict[str, list[str]]:
    """The zero-shot ones of the languages by script and by family, the larger groups first."""
    held, groups = {"en", *trained}, dict[str, list[str]]()
    for key in ("script", "family"):
        found: dict[str, list[str]] = {}
        for language in languages:
            if language not in held and key in facts.get(language, {}):
                found.setdefault(f"{key}: {facts[language][key]}", []).append(language)
        groups |= dict(sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0])))
    return groups


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _squares(values: Sequence[float]) -> float:
    """The sum of squared distances from the mean."""
    middle = _mean(values) if values else 0.0
    return sum((value - middle) ** 2 for value in values)
