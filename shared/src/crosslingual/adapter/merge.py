"""Several exports of one shape as one: averages, task arithmetic and TIES of their tensors; or a
router, which keeps them apart and chooses one by a prompt's script.

Task arithmetic (Ilharco et al., arXiv 2212.04089), TIES (Yadav et al., arXiv 2306.01708) and
pruning by magnitude act on the changes that training made to shared initial weights, the origin. A
method that offers `merge` rebuilds the origin from its config's `seed`: a PEA adapter's random
weights, or the encoder that LoRA started from, whose deltas alone are then the changes.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from crosslingual.adapter.artifact import check_alike
from crosslingual.adapter.settings import MergeSettings
from crosslingual.frozen.weights import differences

State = Mapping[str, Tensor]

_WORDS_OF_SCRIPTS = {
    "Jpan": "HIRAGANA KATAKANA CJK",
    "Hans": "CJK",
    "Hant": "CJK",
    "Kore": "HANGUL CJK",
    "Beng": "BENGALI",
    "Orya": "ORIYA",
    "Cans": "CANADIAN",
    "Nkoo": "NKO",
    "Mtei": "MEETEI",
}
"""First words of Unicode's names of letters, where they are not the script's English name."""


def merge_states(
    states: Sequence[State],
    weights: Sequence[float],
    method: str = "average",
    *,
    origin: State | None = None,
    density: float = 0.2,
) -> dict[str, Tensor]:
    """One state of several.

    `average` is sum w_i s_i / sum w_i. The others are origin + m(w, s_1 - origin, ...), where m is
    peft's: the sum of w_i times each change (`task_arithmetic`), the same of each change's largest
    entries (`magnitude_prune`), or for each entry the mean of w_i times those of the largest that
    have the elected sign (`ties`).

    Args:
        states: tensors of the same names and shapes.
        weights: one for each state.
        method: one of these four.
        origin: the weights that all states started from; `average` needs none.
        density: share of each tensor's entries, the largest changes, that the last two keep.

    Returns:
        Tensors in the dtype of the first state; whole numbers are the first state's.

    Raises:
        ValueError: names or shapes differ.
    """
    for other in [*states[1:], *([] if origin is None else [origin])]:
        if faults := differences(dict(states[0]), other):
            raise ValueError(f"these weights are not of one shape; {faults}")
    scales = torch.tensor(weights, dtype=torch.float32)
    if method == "average":
        scales, origin = scales / scales.sum(), {}
    merge = _merger(method, density)
    merged = {}
    for name, first in states[0].items():
        if not first.is_floating_point():
            merged[name] = first
            continue
        start = origin[name].float() if name in origin else torch.zeros_like(first.float())
        changes = [state[name].float() - start for state in states]
        merged[name] = (start + merge(changes, scales)).to(first.dtype)
    return merged


def _merger(method: str, density: float) -> Callable[[list[Tensor], Tensor], Tensor]:
    """peft's function of changes and weights; an average is task arithmetic from zero."""
    from peft.utils import merge_utils

    if method in ("average", "task_arithmetic"):
        return merge_utils.task_arithmetic
    return functools.partial(getattr(merge_utils, method), density=density)


def merge_exports(
    settings: MergeSettings,
    load: Callable[[str], tuple[State, Mapping[str, Any]]],
    origin_of: Callable[[Mapping[str, Any]], State],
    may_differ: Collection[str] = (),
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state and the config of an export that merges others.

    Args:
        settings: of the verb.
        load: reads a folder's tensors and config.
        origin_of: the weights that an export with that config started from.
        may_differ: keys of configs that say how the method trained.

    Raises:
        FileNotFoundError, ValueError: as `load`; fewer than two exports, numbers that do not fit,
            or exports of different bases, encoders, shapes or origins.
    """
    weights = _checked_weights(settings)
    loaded = {folder: load(folder) for folder in settings.exports}
    configs = {folder: config for folder, (_, config) in loaded.items()}
    check_alike(configs, may_differ)
    first = dict(next(iter(configs.values())))
    origin = None
    if settings.method != "average":
        check_origin(configs, settings.method)
        origin = origin_of(first)
    states = [state for state, _ in loaded.values()]
    merged = merge_states(states, weights, settings.method, origin=origin, density=settings.density)
    told = {"method": settings.method, "weights": weights}
    if settings.method in ("ties", "magnitude_prune"):
        told["density"] = settings.density
    told["languages"] = [list(config["languages"]) for config in configs.values()]
    languages = list(dict.fromkeys(name for each in told["languages"] for name in each))
    if len({config.get("seed") for config in configs.values()}) > 1:
        first["seed"] = None
    return merged, {**first, "languages": languages, "merged": told}


def _checked_weights(settings: MergeSettings) -> list[float]:
    num = len(settings.exports)
    if num < 2 or len(set(settings.exports)) < num:
        raise ValueError("exports: name two or more folders, each once")
    weights = list(settings.weights) or [1.0] * num
    if len(weights) != num:
        raise ValueError(f"weights: {len(weights)} numbers for {num} exports; give one for each")
    if settings.method == "average" and not sum(weights) > 0:
        raise ValueError(f"weights: an average needs a sum above 0, not {sum(weights):g}")
    if not 0 < settings.density <= 1:
        raise ValueError(f"density is {settings.density:g}: it is a share, above 0 and at most 1")
    return weights


def check_origin(configs: Mapping[str, Mapping[str, Any]], method: str) -> None:
    """Refuses exports that did not start from the same weights.

    Raises:
        ValueError: their seeds differ, or one says none.
    """
    for folder, config in configs.items():
        if config.get("seed") is None:
            raise ValueError(
                f"{folder} does not say by which seed its weights started, which {method} needs: "
                "use --method average"
            )
    seeds = {folder: config["seed"] for folder, config in configs.items()}
    if len(set(seeds.values())) > 1:
        told = ", ".join(f"{folder} by seed {seed}" for folder, seed in seeds.items())
        raise ValueError(
            f"{method} needs exports that started from the same weights, and these did not "
            f"({told}): train with one --seed, or use --method average"
        )


def choose_by_script(text: str, languages: Mapping[str, Sequence[str]]) -> str:
    """The export, of a mapping from exports to their languages, whose languages' script the text is
    written in.

    That is the language of the highest share of the text's letters; of equal shares, that of fewer
    alphabets (Chinese before Japanese for Han alone), and then the export that comes first. Scripts
    do not tell languages of one script apart.
    """
    letters = Counter(
        unicodedata.name(sign, "?").split()[0]
        for sign in text
        if unicodedata.category(sign).startswith("L")
    )

    def fit(language: str) -> tuple[int, int]:
        words = letter_words(language)
        return sum(letters[word] for word in words), -len(words)

    return max(languages, key=lambda export: max(map(fit, languages[export]), default=(0, 0)))


@functools.cache
def letter_words(language: str) -> frozenset[str]:
    """The first words of Unicode's names of the letters that a language is usually written with."""
    import langcodes

    likely = langcodes.get(language).maximize()
    words = _WORDS_OF_SCRIPTS.get(likely.script) or likely.script_name().upper().split()[0]
    return frozenset(words.split())
