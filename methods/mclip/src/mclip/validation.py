"""Validation while TriKD trains: mean recall between pictures and captions of held-out features, in
every language of theirs, trained or not.
"""

import torch
import torch.nn.functional as F

from crosslingual.evaluation.retrieval import recall_at_k
from crosslingual.features.loader import FeatureLoader
from mclip.data import RetrievalParts
from mclip.method import TriKD
from mclip.settings import TrainSettings


def open_validation(settings: TrainSettings, parts: RetrievalParts) -> FeatureLoader | None:
    """Opens `validation_data` before the first step; None if the run does not validate.

    Raises:
        FileNotFoundError, ValueError: there are no features, or they are of other frozen parts.
    """
    if not settings.validation_steps:
        return None
    made_of = {name: value for name, value in parts.made_of.items() if name != "languages"}
    made_of["resolution"] = settings.resolution
    data, verify = settings.validation_data, settings.verify_data
    return FeatureLoader(data, batch_size=1, seed=0, made_of=made_of, verify=verify)


@torch.no_grad()
def validate(
    trikd: TriKD, loader: FeatureLoader, settings: TrainSettings, device: torch.device
) -> dict[str, float]:
    """Mean recall by language and over languages, as fractions.

    Args:
        trikd: set back to training mode afterwards.
        loader: reads the validation's features.
        settings: the run's; the first `validation_rows` samples count, for a language those with
            a caption in it.
        device: where `trikd` is.
    """
    trikd.eval()
    rows = torch.arange(min(settings.validation_rows, loader.index.num_rows))
    arrays = loader.rows(rows, ["image_embeds", "has_language"])
    embeds = arrays["image_embeds"].to(device, torch.float32)
    images = F.normalize(trikd.clip_projector(embeds), dim=1)
    recalls = {}
    for number, language in enumerate(loader.index.languages):
        places = arrays["has_language"][:, number].nonzero().flatten()
        if len(places) == 0:
            continue
        name = f"states_{language}"
        states = loader.rows(rows[places], [name])[name]
        texts = trikd.x_projector(
            states.values.to(device, torch.float32), states.lengths.to(device)
        )
        found = recall_at_k(images[places], F.normalize(texts, dim=1), torch.arange(len(places)))
        recalls[f"validation_mean_recall_{language}"] = found.mean_recall
    trikd.train()
    return {**recalls, "validation_mean_recall": sum(recalls.values()) / len(recalls)}
