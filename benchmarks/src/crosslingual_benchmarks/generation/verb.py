"""`crosslingual-bench generation`: pictures from prompts in each language, and their scores.

crosslingual-bench generation --method pea --path runs/pea/adapter --dataset testbed
crosslingual-bench generation --method base --base testbed:sd --dataset testbed --languages de ja
crosslingual-bench generation --method base --base testbed:sd --dataset testbed \
    --prompt_language english                                           # the upper bound
crosslingual-bench generation --method pea --path runs/pea/adapter --dataset testbed \
    --languages en de ar --second_languages en de                       # de+ar, ar+de, ...
crosslingual-bench generation --method altdiffusion --path runs/qi/pipeline --dataset mg18 \
    --root crossmodal3600 --num_prompts 1000

Each language appends a line to `output_dir/generation.json`. Pictures lie in GenEval's layout below
`output_dir/ARM-DATASET`, where an interrupted run resumes, with `grid.png` (general prompts) and
`motifs.png` (those of a culture), which show some of them above their prompts.
"""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosslingual.files import LOCK, hold_folder, read_fields, replacing, write_json
from crosslingual_benchmarks.generation.parts import DrawnPart, Part, draw_sheet, parts_of
from crosslingual_benchmarks.generation.pictures import SETTINGS, Drawn, Sampling, draw_pictures
from crosslingual_benchmarks.generation.pipeline import (
    count_parameters,
    made_with,
    pipeline_of,
    prepare_pipeline,
)
from crosslingual_benchmarks.generation.prompts import PromptSet
from crosslingual_benchmarks.generation.settings import (
    PROG,
    GenerationSettings,
    arm_of,
    load_prompt_set,
    references_of,
    with_defaults,
    world_of,
)
from crosslingual_benchmarks.reading import check_name
from crosslingual_benchmarks.report.tables import DASH, render_plain
from crosslingual_benchmarks.results import Result, command_of, facts_of, make_result

if TYPE_CHECKING:
    from crosslingual_benchmarks.generation.scores import Scores
    from crosslingual_benchmarks.metrics.sample import Yardstick

RESULTS = "generation.json"
TASK, MIXED_TASK = "text_to_image", "code_mixing"
PIPELINE = "pipeline.json"
SHEETS = ("grid.png", "motifs.png")  # of general and of culture prompts


def evaluate_generation(
    make_pipeline: Callable[[], Any],
    settings: GenerationSettings,
    prompt_set: PromptSet | None = None,
    yardstick: "Yardstick | None" = None,
) -> list[Result]:
    """Draws and scores an arm's pictures; appends a line a language to `output_dir`.

    Args:
        make_pipeline: called once, if a picture is missing; returns a diffusers pipeline, or what
            is called as one.
        settings: of the verb; `arm` or else `method` names the arm, `path` its weights.
        prompt_set: those that the settings name if not given.
        yardstick: `yardstick_of` the settings if not given; one serves all arms of a data set.

    Raises:
        FileNotFoundError: data, weights or pictures are not there.
        ValueError: settings that do not fit the data, a language without prompts, or a folder of
            pictures that were made otherwise.
    """
    told = with_defaults(settings)
    prompt_set = prompt_set or load_prompt_set(told)
    asked = [] if told.second_languages else told.languages  # else they are pairs
    languages = list(dict.fromkeys(asked or prompt_set.languages))
    # faults of the prompts are errors before anything is loaded or drawn
    parts = {name: parts_of(prompt_set, name, told.prompt_language) for name in languages}
    name = check_name(f"{arm_of(told)}-{prompt_set.name}", "the pictures of --arm")
    folder = Path(told.output_dir) / name
    with hold_folder(folder):
        _refuse_foreign(folder)
        yardstick = yardstick or yardstick_of(told, prompt_set)
        return _evaluate(make_pipeline, settings, prompt_set, parts, yardstick, folder)


def _evaluate(
    make_pipeline: Callable[[], Any],
    settings: GenerationSettings,
    prompt_set: PromptSet,
    parts: dict[str, tuple[Part, Part]],
    yardstick: "Yardstick",
    folder: Path,
) -> list[Result]:
    from crosslingual.evaluation.retrieval import append_result

    told = with_defaults(settings)
    pipeline = functools.cache(lambda: _loaded(make_pipeline, told, folder))
    weights = made_with(told)
    results, shown = [], []
    for language in parts:
        started = time.perf_counter()
        pictures = [_draw(part, folder, pipeline, weights, told) for part in parts[language]]
        scores = _score(parts[language], pictures, prompt_set, yardstick, told)
        shown.append(
            [
                DrawnPart(part, drawn, scores.marks.get(part.score) or [None] * len(drawn))
                for part, drawn in zip(parts[language], pictures, strict=True)
            ]
        )
        result = _result(scores, shown[-1], prompt_set, told, command_of(PROG, settings))
        result["wall_s"] = time.perf_counter() - started
        if (folder / PIPELINE).is_file():
            remedy = f"remove {folder} to draw its pictures again"
            result |= read_fields(folder / PIPELINE, {"total_parameters": int}, remedy)
        append_result(Path(told.output_dir) / RESULTS, result)
        results.append(result)
    for name, drawn_parts in zip(SHEETS, zip(*shown, strict=True), strict=True):
        sheet = draw_sheet(drawn_parts, told.num_shown)
        if sheet is not None:
            with replacing(folder / name) as partial:
                sheet.save(partial, "png")
        else:  # of prompts that an earlier run had
            (folder / name).unlink(missing_ok=True)
    print(render_table(results))
    return results


def _refuse_foreign(folder: Path) -> None:
    """Refuses a folder that holds something, and no pictures of this verb."""
    found = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    if found and not any(folder.glob(f"*/*/{SETTINGS}")) and PIPELINE not in found:
        raise ValueError(
            f"{folder} holds {found[0]}, which this program did not write; choose another "
            "--output_dir or --arm"
        )


def _loaded(make_pipeline: Callable[[], Any], settings: GenerationSettings, folder: Path) -> Any:
    """The pipeline, ready; its size is written down for runs that find all pictures drawn."""
    pipe = prepare_pipeline(make_pipeline(), settings)
    write_json(folder / PIPELINE, {"total_parameters": count_parameters(pipe)})
    return pipe


def yardstick_of(settings: GenerationSettings, prompt_set: PromptSet) -> "Yardstick":
    """The networks and true pictures that settings name.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: a network is of another kind, a picture is broken, or there are fewer than 2.
    """
    from crosslingual_benchmarks.metrics.sample import load_yardstick

    told = with_defaults(settings)
    references = references_of(told, prompt_set)
    num_general = sum(prompt.culture is None for prompt in prompt_set.prompts)
    if references is not None and num_general < 2:
        raise ValueError(
            f"FID of {num_general} picture means nothing: ask for more prompts, or give "
            "--use_references false"
        )
    world = world_of(told)
    judge = world and (world.evaluation.shows, world.evaluation.place)
    return load_yardstick(told.clip, told.extractor, references, told.resolution, *(judge or ()))


def generation(settings: GenerationSettings) -> list[Result]:
    """Prints a table, appends the lines, and returns them; see `evaluate_generation`."""
    return evaluate_generation(pipeline_of(settings.method, settings.path, settings.base), settings)


def _draw(
    part: Part,
    folder: Path,
    pipeline: Callable[[], Any],
    weights: dict[str, Any],
    settings: GenerationSettings,
) -> list[Drawn]:
    if not part.numbered:
        return []
    return draw_pictures(
        folder / part.place,
        part.requests,
        pipeline,
        Sampling(
            settings.num_inference_steps,
            settings.guidance_scale,
            settings.resolution,
            settings.seed,
        ),
        made_with=weights,
        batch_size=settings.batch_size,
        title=f"{arm_of(settings)} {part.language} {part.kind}",
    )


def _score(
    parts: Sequence[Part],
    pictures: Sequence[list[Drawn]],
    prompt_set: PromptSet,
    yardstick: "Yardstick",
    settings: GenerationSettings,
) -> "Scores":
    from crosslingual_benchmarks.generation.scores import score_pictures
    from crosslingual_benchmarks.metrics.sample import Sample

    general, culture = (
        list(zip(part.prompts, drawn, strict=True))
        for part, drawn in zip(parts, pictures, strict=True)
    )
    counts = settings.num_bootstrap, settings.num_fid_bootstrap, settings.seed
    return score_pictures(Sample(yardstick, general, culture, prompt_set.prompts, *counts))


def _result(
    scores: "Scores",
    drawn_parts: Sequence[DrawnPart],
    prompt_set: PromptSet,
    settings: GenerationSettings,
    command: str,
) -> Result:
    """A language's line."""
    general, culture = drawn_parts
    names = ("num_inference_steps", "guidance_scale", "scheduler", "resolution")
    protocol = {name: getattr(settings, name) for name in names}
    protocol |= {"num_prompts": len(general.drawn), "num_culture_prompts": len(culture.drawn)}
    prompts = [*general.part.prompts, *culture.part.prompts]
    language = general.part.language
    told = json.dumps([[p.id, p.prompts[language], p.english] for p in prompts])
    trained = {"trained_languages": settings.trained_languages}
    return make_result(
        MIXED_TASK if settings.second_languages else TASK,
        dataset=prompt_set.name,
        model=arm_of(settings),
        pretrained=settings.path or settings.base or "",
        language=language,
        metrics=scores.metrics,
        interval95=scores.interval95,
        protocol=protocol | prompt_set.protocol | scores.protocol,
        prompt_language=settings.prompt_language,
        prompts_sha256=hashlib.sha256(told.encode()).hexdigest(),
        precision=settings.mixed_precision.replace("no", "fp32"),
        seed=settings.seed,
        command=command,
        num_kept=sum(d.is_kept for each in drawn_parts for d in each.drawn),
        samples=[
            {"prompt": drawn.request.prompt, "is_right": mark}
            for each in drawn_parts
            for drawn, mark in list(zip(each.drawn, each.marks, strict=True))[: settings.num_shown]
        ],
        warnings=scores.warnings,
        **scores.further,
        **facts_of(settings.dataset, language),
        **(trained if settings.trained_languages else {}),
    )


def render_table(results: Sequence[Result]) -> str:
    """A row a language with its metrics as the report shows them, and below them the warnings."""
    from crosslingual_benchmarks.metrics import find_metrics

    first = results[0]
    shown = [m for m in find_metrics() if any(m.name in r["metrics"] for r in results)]
    rows = []
    for result in results:
        values = [(metric, result["metrics"].get(metric.name)) for metric in shown]
        cells = (DASH if v is None else f"{m.scale * v:.{m.decimals}f}" for m, v in values)
        rows.append([result["language"], *cells])
    lines = [f"{first['model']} on {first['dataset']}, {first['pretrained']}"]
    lines.append(render_plain(["language", *(metric.head for metric in shown)], rows))
    lines += [f"{r['language']}: {warning}" for r in results for warning in r["warnings"]]
    return "\n".join(lines)
