"""Arms: which lines of a group are one row, the row's name, and which row is a bound."""

from collections.abc import Sequence
from dataclasses import dataclass

from crosslingual_benchmarks.report.measures import (
    Number,
    mean_number,
    number_of,
    over_seeds,
)
from crosslingual_benchmarks.results import Result

UPPER_BOUNDS = ("english_upper_bound", "upper_bound", "english")
"""Names of arms that always read the English prompt: they are a bound and do not compete."""

LABELS = {
    "pea": "PEA",
    "pea_published": "PEA, published form",
    "pea_aligned": "PEA, aligned encoder",
    "pea_after_mclip": "PEA after mCLIP",
    "pea_first_blocks": "PEA, first two blocks",
    "pea_attentions": "PEA, attentions",
    "pea_predictions": "PEA, predictions alone",
    "pea_x2i": "PEA in X2I's form",
    "mclip": "mCLIP",
    "mulan": "MuLan",
    "mulan_published": "MuLan, published form",
    "mulan_after_mclip": "MuLan after mCLIP",
    "mulan_not_aligned": "MuLan, encoder not aligned",
    "iap": "IAP",
    "iap_published": "IAP, published form",
    "iap_aligned": "IAP, aligned encoder",
    "iap_clip_attention": "IAP, CLIP's attention",
    "altdiffusion": "AltDiffusion",
    "altdiffusion_published": "AltDiffusion, published form",
    "as_is": "as-is",
    "clip": "CLIP, as-is",
    "translate_test": "translate-test",
    "text_space_mse": "text-space MSE",
    "text_space_mse_foreign": "text-space MSE, no English",
    "full_finetuning": "full fine-tuning",
    "random": "random (chance)",
    "pea_longer": "PEA, longer",
    "pea_alone": "PEA, longer, no English",
    "pea_keywords": "PEA, keywords too",
    "pea_related": "PEA on relatives",
    "pea_transfer": "PEA, from relatives' adapter",
    **dict.fromkeys(UPPER_BOUNDS, "English upper bound"),
}


@dataclass(frozen=True)
class Arm:
    """A row: the lines of one model in one group of results, no two of which have the same metric
    in the same language. A row over several seeds has the row of each as `seeds`.
    """

    label: str
    model: str
    results: list[Result]
    seeds: tuple["Arm", ...] = ()

    @property
    def is_bound(self) -> bool:
        """Whether it reads English whatever the prompt's language, by name or by its lines'
        `prompt_language`.
        """
        is_told = any(result.get("prompt_language") == "english" for result in self.results)
        return is_told or self.model in UPPER_BOUNDS

    def number(self, name: str, language: str | None = None) -> Number | None:
        """A metric in a language; of lines without a language if none is given. Over several seeds
        it is the mean, from the lowest to the highest.
        """
        if self.seeds:
            each = [arm.number(name, language) for arm in self.seeds]
            return over_seeds([number.value for number in each if number is not None])
        found = (number_of(r, name) for r in self.results if r.get("language") == language)
        return next((number for number in found if number is not None), None)

    def mean(self, name: str, languages: Sequence[str]) -> tuple[Number | None, int]:
        """A metric's mean over those of the languages that the arm has, and how many these are.

        Over several seeds it is the mean of theirs, from the lowest to the highest.
        """
        if self.seeds:
            means = [arm.mean(name, languages) for arm in self.seeds]
            values = [number.value for number, _ in means if number is not None]
            return over_seeds(values), max(count for _, count in means)
        found = [n for language in languages if (n := self.number(name, language)) is not None]
        return mean_number(found), len(found)

    @property
    def trained_languages(self) -> set[str] | None:
        """The languages that it was trained in, where its lines name them."""
        told = [set(r["trained_languages"]) for r in self.results if "trained_languages" in r]
        return set().union(*told) if told else None


def arms_of(results: Sequence[Result]) -> list[Arm]:
    """Groups lines of one dataset and protocol into rows.

    A model's lines are one row, also where every language has weights of its own. Lines of the same
    model, language and metric are separate rows, named by the seed or the weights that differ.

    Returns:
        Rows in the order of `LABELS`, then others by name, then bounds.
    """
    by_model: dict[str, list[Result]] = {}
    for result in results:
        by_model.setdefault(result["model"], []).append(result)
    arms: list[Arm] = []
    for model, lines in by_model.items():
        label = LABELS.get(model, model)
        if _are_apart(lines, ()):
            arms.append(Arm(label, model, lines))
            continue
        told = _telling_keys(lines)
        parts: dict[str, list[Result]] = {}
        for line in lines:
            words = [f"seed {line.get(k)}" if k == "seed" else str(line.get(k)) for k in told]
            parts.setdefault(", ".join(words), []).append(line)
        arms += [Arm(f"{label} ({words})", model, part) for words, part in parts.items()]
    order = list(LABELS)

    def place(arm: Arm) -> tuple[bool, int, str]:
        known = order.index(arm.model) if arm.model in LABELS else len(order)
        return arm.is_bound, known, arm.label

    return sorted(arms, key=place)


def merge_seeds(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, with those of one model that differ in their seed alone as one row."""
    by_model: dict[str, list[Arm]] = {}
    for arm in arms:
        by_model.setdefault(arm.model, []).append(arm)
    rows: list[Arm] = []
    for model, parts in by_model.items():
        seeds = [{line.get("seed") for line in arm.results} for arm in parts]
        if len(parts) > 1 and len(set().union(*seeds)) == sum(map(len, seeds)) == len(parts):
            lines = [line for arm in parts for line in arm.results]
            label = f"{LABELS.get(model, model)} ({len(parts)} seeds)"
            rows.append(Arm(label, model, lines, tuple(parts)))
        else:
            rows += parts
    return rows


def style_of(model: str) -> int:
    """The number of an arm's colour and shape, the same in every plot."""
    return list(LABELS).index(model) if model in LABELS else len(LABELS) + sum(model.encode())


def _telling_keys(lines: Sequence[Result]) -> tuple[str, ...]:
    """The fewest keys that identify each number of one model, language and metric."""
    most = ("pretrained", "seed")
    return next((keys for keys in (("seed",), ("pretrained",)) if _are_apart(lines, keys)), most)


def _are_apart(lines: Sequence[Result], keys: Sequence[str]) -> bool:
    """Whether no two lines have the same metric in the same language under the same keys."""
    told = [
        repr([metric, line.get("language"), *(line.get(key) for key in keys)])
        for line in lines
        for metric in line["metrics"]
    ]
    return len(set(told)) == len(told)
