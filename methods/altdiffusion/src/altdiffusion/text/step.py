"""One step of the text half: from a batch of sentences to the loss."""

from typing import Any

from torch import nn

from altdiffusion.method import Loss, contrastive_loss, teacher_learning_loss


def text_step(student: nn.Module, teacher: nn.Module, batch: dict[str, Any], stage: str) -> Loss:
    """Computes the loss of this rank's sentences; every process must call it.

    Args:
        student: the student, or the engine around it.
        teacher: the CLIPModel; the contrastive stage uses its text projection and scale.
        batch: a batch from `SentenceBatches`.
        stage: teacher_learning or contrastive.
    """
    ids, mask, target = (batch[name].to(teacher.device) for name in ("ids", "mask", "target"))
    said = student(ids, attention_mask=mask).pooler_output.float()
    if stage == "teacher_learning":
        return teacher_learning_loss(said, target)
    joint = nn.functional.linear(said, teacher.text_projection.weight)
    return contrastive_loss(joint, target, teacher.logit_scale.exp())
