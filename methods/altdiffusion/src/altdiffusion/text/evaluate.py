"""`altdiffusion evaluate-retrieval`: AltCLIP's Recall@1/5/10 in both directions, by language."""

from typing import Any

from altdiffusion.text.pipeline import load_embedder
from altdiffusion.text.settings import EvaluateRetrievalSettings
from crosslingual.evaluation import embedder


def evaluate_retrieval(settings: EvaluateRetrievalSettings) -> dict[str, dict[str, Any]]:
    """Prints a table, appends one line of JSON per language to `output_dir/results.json`, and
    returns these results by language.
    """
    loaded = load_embedder(settings.model, settings.batch_size)
    kind = loaded.clip.model.config.model_type
    return embedder.evaluate_retrieval(settings, loaded, kind)
