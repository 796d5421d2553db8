"""The warm start, ours and not the paper's: before distillation, captions are compared with their
English translations at the places where the frozen denoiser reads text.

Shapes: N captions, P positions of a picture, W width of a block, L tokens, C encoder width, D
width of the denoiser's text states.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crosslingual.features.frozen_parts import placed
from crosslingual.frozen.base import Conditioning
from crosslingual.frozen.schedule import Generators, drop_captions, one_a_row
from pea.method import BlockOutputs, mean_over, squared_error
from pea.step import Frozen


class CrossAttentions(BlockOutputs):
    """Keeps what a denoiser's cross-attentions are asked and what they answer (B, P, W), as
    `outputs`, while it is entered; and asks the same of other texts.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        num_queries: int = 0,
        draws: Sequence[torch.Generator] = (),
    ):
        """`layers` are diffusers' `Attention`. Of each one's positions, `num_queries` are kept,
        drawn for each picture from its generator in `draws`; 0 keeps all.
        """
        super().__init__(layers, lambda _layer, answer: answer)
        self.asked: list[Tensor] = []
        self.num_queries, self.draws = num_queries, draws

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        asked = inputs[0]
        batch, positions = asked.shape[:2]
        if 0 < self.num_queries < positions:
            shuffled = [torch.randperm(positions, generator=row) for row in self.draws]
            kept = torch.stack(shuffled)[:, : self.num_queries].to(asked.device)
            picture = torch.arange(batch, device=asked.device)[:, None]
            asked, output = asked[picture, kept], output[picture, kept]
        self.asked.append(asked)
        super()._keep(module, inputs, output)

    def ask(self, asked: Sequence[Tensor], text: Conditioning, project: nn.Module) -> None:
        """Takes what earlier passes asked, (B, draws, P, W) a layer, in place of a pass: one draw a
        picture, from its generator. The answers kept are those of `text`, through the denoiser's
        `project`.
        """
        states, mask = project(text.states), text.mask
        picks = [torch.randint(asked[0].shape[1], (1,), generator=row) for row in self.draws]
        rows, picked = torch.arange(len(picks)), torch.cat(picks)
        self.asked = [kept[rows, picked].to(states.device, torch.float32) for kept in asked]
        self.outputs = self.answers(rows, states, mask)

    def answers(self, rows_N: Tensor, states_NLD: Tensor, mask_NL: Tensor | None) -> list[Tensor]:
        """Each layer's answers (N, P, W) to what it was asked in `rows_N`, from other states."""
        bias = None if mask_NL is None else -10000.0 * (1.0 - mask_NL.float())[:, None]
        pairs = zip(self.blocks, self.asked, strict=True)
        return [
            layer(asked[rows_N], encoder_hidden_states=states_NLD, attention_mask=bias)
            for layer, asked in pairs
        ]


def read_tokens(adapter: nn.Module, states_NLC: Tensor) -> Tensor:
    """What an adapter without a pooled output makes of token states: (N, L, D). It reads each token
    by itself, so it is given the first of equal states that follow each other, as padding's do.
    """
    is_new_NL = torch.ones(states_NLC.shape[:2], dtype=torch.bool, device=states_NLC.device)
    is_new_NL[:, 1:] = (states_NLC[:, 1:] != states_NLC[:, :-1]).any(dim=-1)
    states_MD, _ = adapter(states_NLC[is_new_NL])
    places_NL = is_new_NL.flatten().cumsum(0).view(is_new_NL.shape) - 1
    return F.embedding(places_NL, states_MD)  # whose gradient adds up in one order, unlike []'s


def warm_start_loss(
    student: list[Tensor], teacher: list[Tensor], has_teacher_N: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The distance of what the frozen cross-attentions read from a caption and from its English
    translation, for the same questions; no paper's, but IAP's loss (arXiv 2305.11540) on PEA's
    adapter. Unlike a distance of the states, it compares no positions of the texts, whose words
    may stand in another order.

    L = mean_layers mean_rows (A_S - A_T)^2 / Var(A_T)

    Args:
        student, teacher: answers of each layer (N, P, W), and pooled vectors (N, 1, P) last
            where the base takes them. Each row is divided by the variance of its teacher.
        has_teacher_N: rows that count.
    """
    weight = has_teacher_N.float()

    def relative(ours: Tensor, theirs: Tensor) -> Tensor:
        variance = theirs.float().flatten(1).var(dim=1).clamp(min=1e-6)
        return mean_over(squared_error(ours, theirs) / variance, weight)

    loss = torch.stack([relative(s, t) for s, t in zip(student, teacher, strict=True)]).mean()
    return loss, {"warm_start": loss.detach()}


def warm_start_step(
    adapter: nn.Module,
    frozen: Frozen,
    batch: dict[str, Tensor],
    draws: Generators,
    num_queries: int = 0,
    is_kept: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of a batch, and its parts, in the warm start.

    The English pipeline denoises the parallel rows, and its cross-attentions are then asked the
    same of every caption of theirs. No other part of the denoiser runs for the adapter, so that
    several captions cost as much as one in `pea_step`. The arguments are those of `pea_step`, how
    many positions of a picture each cross-attention asks from (0 for all), and whether what is
    asked is kept in the batch (`asked_0`, ...), of the English caption also where it is dropped,
    so that no pass runs.
    """
    denoiser, null = frozen.denoiser, frozen.null
    device = denoiser.device
    noisy = frozen.noising.draw(batch, draws)
    parallel = ~batch["native"] & batch["has_english"]
    # Without a parallel row all rows run, with weight 0: every rank has the same graph.
    rows = (parallel if parallel.any() else torch.ones_like(parallel)).nonzero()[:, 0]
    of_row, language = batch["has_language"][rows].nonzero(as_tuple=True)
    dropped = noisy.dropped[rows.to(device)]

    def with_empty(name: str, chosen: Tensor, is_dropped: Tensor) -> Tensor:
        return drop_captions(placed(chosen, device), null[name], is_dropped)

    names = [name for name in ("english_states", "english_pooled", "english_mask") if name in batch]
    english = {
        name.removeprefix("english_"): with_empty(name, batch[name][rows], dropped)
        for name in names
    }
    layers = [layer for _, layer in denoiser.cross_attentions()]
    every = one_a_row(draws, len(parallel))
    asking = [every[row] for row in rows.tolist()]
    attentions = CrossAttentions(layers, num_queries, asking)
    text = Conditioning(**english)
    with torch.no_grad(), denoiser.autocast():
        if is_kept:
            kept = [batch[f"asked_{number}"][rows] for number in range(len(layers))]
            attentions.ask(kept, text, denoiser.text_projection())
        else:
            with attentions:
                denoiser.predict(noisy.latents[rows], noisy.timesteps[rows], text)

    def read(name: str) -> Tensor | None:
        if name not in batch:
            return None
        return with_empty(name, batch[name][rows[of_row], language], dropped[of_row])

    tokens, pooled = read("multilingual_states"), None
    if "pooled" in english:
        states, pooled = adapter(tokens)
    else:
        states = read_tokens(adapter, tokens)
    with denoiser.autocast():
        projected = denoiser.text_projection()(states)
        student = attentions.answers(of_row, projected, read("multilingual_mask"))
    teacher = [answer[of_row] for answer in attentions.outputs]
    if pooled is not None:
        student.append(pooled[:, None])
        teacher.append(english["pooled"][of_row, None])
    return warm_start_loss(student, teacher, parallel[rows[of_row]].to(device))
