"""The verbs of `crosslingual-bench`: each is a function and its settings."""

from crosslingual.cli.verbs import Verb

DESCRIPTION = """\
One yardstick for every cross-lingual method: the same work, the same prompts, the same measures."""

SUMMARIES = {
    "compare": "train and measure every method and baseline of a suite",
    "ablate": "compare a method's own choices",
    "retrieval": "measure Recall@K on published benchmarks",
    "generation": "draw pictures and measure FID, KID, CLIP score, text accuracy, culture score",
    "sheet": "draw one prompt in all languages, from a finished run's pictures",
    "latency": "measure milliseconds per query, on this machine",
    "cost": "print hours, price and price per point, measured and published",
    "recommend": "say which method fits a budget and wishes, and why",
    "report": "write a page, tables and plots of result files",
    "play": "serve a page that draws and searches in any language",
    "finetune-features": "full fine-tuning: compute latents and token ids of shards, once",
    "finetune": "full fine-tuning: train UNet and text encoder by the diffusion loss",
    "finetune-export": "full fine-tuning: write a checkpoint's pipeline",
    "perf": "list the cases that measure speed and memory",
}
PLACES = {
    "compare": ("compare.verb:compare", "compare.verb:CompareSettings"),
    "ablate": ("compare.verb:ablate", "compare.verb:AblateSettings"),
    "retrieval": ("retrieval.verb:retrieval", "retrieval.verb:RetrievalSettings"),
    "generation": ("generation.verb:generation", "generation.settings:GenerationSettings"),
    "sheet": ("generation.sheet:sheet", "generation.sheet:SheetSettings"),
    "latency": ("latency:latency", "latency:LatencySettings"),
    "cost": ("cost.verb:cost", "cost.verb:CostSettings"),
    "recommend": ("recommend.verb:recommend", "recommend.verb:RecommendSettings"),
    "report": ("report.verb:report", "report.verb:ReportSettings"),
    "play": ("play.verb:play", "play.settings:PlaySettings"),
    "finetune-features": (
        "baselines.full_finetuning:features",
        "baselines.settings:FeaturesSettings",
    ),
    "finetune": ("baselines.full_finetuning:finetune", "baselines.settings:FinetuneSettings"),
    "finetune-export": ("baselines.full_finetuning:export", "baselines.settings:ExportSettings"),
    "perf": ("perf:perf", "perf:PerfSettings"),
}
VERBS = {
    name: Verb(SUMMARIES[name], *(f"crosslingual_benchmarks.{place}" for place in places))
    for name, places in PLACES.items()
}
