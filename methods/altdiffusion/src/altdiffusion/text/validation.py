"""Measures how well the student matches its teacher on held-out sentences, by language."""

from collections import defaultdict
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from altdiffusion.text.encoder import TextEncoder
from altdiffusion.text.parallel_text import open_sources, tags_of
from altdiffusion.text.sentences import pooled_states
from altdiffusion.text.settings import TrainTextSettings
from crosslingual.evaluation.retrieval import recall_at_k
from crosslingual.frozen.clip import FrozenCLIP

BATCH_ROWS = 128


class TextValidation:
    """Held-out sentences, and the teacher's vectors for the English ones."""

    def __init__(self, settings: TrainTextSettings, teacher: FrozenCLIP, student: TextEncoder):
        """Reads the first `validation_rows` distinct English sentences and their translations.

        Raises:
            ValueError: `validation_data` holds no such sentence.
        """
        self.student, self.device = student, teacher.model.device
        sources = open_sources(settings.validation_data)
        tags = tags_of(sources, settings.languages)
        records = (record for source in sources for record in source.records(tags))
        english: dict[str, int] = {}
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.places: dict[str, list[int]] = defaultdict(list)
        parallel = (r for r in records if r.parallel and "en" in r.captions)
        distinct = (r for r in parallel if r.captions["en"][0] not in english)
        for record in islice(distinct, settings.validation_rows):
            place = english.setdefault(record.captions["en"][0], len(english))
            for language, captions in record.captions.items():
                if not settings.languages or language in settings.languages:
                    self.texts[language].append(captions[0])
                    self.places[language].append(place)
        if not self.texts:
            raise ValueError("validation_data holds no parallel sentence in the languages")
        self.teacher_IP = pooled_states(teacher, list(english)).cpu()

    @torch.no_grad()
    def measure(self, student: Any) -> dict[str, float]:
        """Mean squared error, and the share of sentences whose nearest teacher vector is that of
        their translation, by language and averaged. Every process must call it.

        Args:
            student: the student, or the engine around it.
        """
        found = {}
        for language, texts in sorted(self.texts.items()):
            said = self._vectors(student, texts)
            places = torch.tensor(self.places[language])
            found[f"error_{language}"] = (said - self.teacher_IP[places]).square().mean().item()
            own = places.unique()
            renumbered = torch.searchsorted(own, places)
            recall = recall_at_k(self.teacher_IP[own], said, renumbered, ks=(1,))
            found[f"recall_{language}"] = recall.text_to_image[1]
        for name in ("error", "recall"):
            values = [value for key, value in found.items() if key.startswith(f"{name}_")]
            found[name] = sum(values) / len(values)
        return {f"validation_{name}": value for name, value in found.items()}

    def _vectors(self, student: Any, texts: list[str]) -> Tensor:
        rows = []
        for batch in (texts[i : i + BATCH_ROWS] for i in range(0, len(texts), BATCH_ROWS)):
            ids, mask = (part.to(self.device) for part in self.student.tokenize(batch))
            rows.append(student(ids, attention_mask=mask).pooler_output.float().cpu())
        return torch.cat(rows)
