"""The training loop of `altdiffusion train-text`, for both stages of the text half."""

from functools import partial
from pathlib import Path

from altdiffusion.text.artifact import load_parts, save_models
from altdiffusion.text.data import open_sentences
from altdiffusion.text.settings import TrainTextSettings
from altdiffusion.text.step import text_step
from altdiffusion.text.validation import TextValidation
from crosslingual.frozen.weights import frozen_tensors
from crosslingual.training.run import Run


def train_text(settings: TrainTextSettings) -> Path:
    """Trains a student and exports it to `output_dir/text_encoder` and, with the teacher's vision
    tower, to `output_dir/altclip`.
    """
    run = Run(settings)
    teacher, student = load_parts(settings, run.ranks.device)
    data = open_sentences(settings, teacher, student, run.ranks)
    validation = TextValidation(settings, teacher, student) if settings.validation_steps else None
    student.model.train()  # has no dropout; gradient checkpointing works only in this mode
    if settings.gradient_checkpointing:
        student.model.activation_checkpointing_enable()
    kept = frozen_tensors(student.model)  # ZeRO stage 3 takes them apart
    engine = run.prepare(student.model)
    batches = data.batches(run.first_micro_step)
    for step in run.steps():
        for _ in run.micro_steps(step):
            batch = next(batches)
            loss, parts = text_step(engine, teacher.model, batch, settings.stage)
            run.backward(loss, parts, keys=partial(data.keys, batch))
        run.end_step()
        if run.validates(step):  # on every rank: ZeRO stage 3 gathers weights as they are used
            run.log(validation.measure(engine), step)
    return run.finish(lambda state: save_models(run.output_dir, kept | state, student, teacher))
