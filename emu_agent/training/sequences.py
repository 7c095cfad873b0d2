"""Recorded futures as sequences of tokens, and the loss on the answers in them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from emu_agent.data.plans import Plan
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.sequence import SequenceFormat, TokenSequence
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.transformer import WorldModel


class TokenBatch(NamedTuple):
    """Sequences, padded on the right."""

    ids: Int64[Tensor, "batch length"]
    loss_weight: Float[Tensor, "batch length"]
    actions: Float[Tensor, "batch answers features"] | None = None
    """Of the chunks that lead to the answers, where the model reads them as numbers: first that of the
    sequence itself, then those of its branches; where a row has fewer, its last again."""
    sequences: tuple[TokenSequence, ...] = ()
    """What the rows were made of."""

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same elsewhere."""
        actions = None if self.actions is None else self.actions.to(device)
        return TokenBatch(self.ids.to(device), self.loss_weight.to(device), actions, self.sequences)

    def images(self, vocabulary: Vocabulary) -> Bool[Tensor, "batch length"]:
        """Which tokens of answers stand at or behind an IMG."""
        return ((self.ids == vocabulary.img) & (self.loss_weight > 0)).cumsum(1) > 0

    def added(
        self,
        model: WorldModel,
        answers: Bool[Tensor, "batch length"],
        image: Int64[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length hidden_size"] | None:
        """What the actions add to the embeddings of the tokens of answers.

        Args:
            model: whose condition it is.
            answers: which tokens these are, from IMG on.
            image: of tokens of noisy copies, the number of the copy; None without copies.
        """
        if self.actions is None:
            return None
        condition = model.condition(self.actions)
        if image is None:
            return condition[:, :1] * answers[..., None]
        number = image.clamp(0, condition.shape[1] - 1)
        return condition.gather(1, number[..., None].expand(-1, -1, condition.shape[-1])) * answers[..., None]


def padded(sequences: Sequence[TokenSequence], pad: int) -> TokenBatch:
    """Sequences of any lengths as one batch."""
    ids = nn.utils.rnn.pad_sequence([s.ids for s in sequences], True, pad)
    weight = nn.utils.rnn.pad_sequence([s.loss_weight for s in sequences], True, 0.0)
    return TokenBatch(ids, weight, _actions(sequences), tuple(sequences))


def _actions(sequences: Sequence[TokenSequence]) -> Float[Tensor, "batch answers features"] | None:
    rows = [[a.actions for a in (one, *one.branches) if a.actions is not None] for one in sequences]
    most = max(map(len, rows))
    return torch.stack([torch.stack(row + row[-1:] * (most - len(row))) for row in rows]) if most else None


def imagine_sequence(
    sequence_format: SequenceFormat,
    codes: Int64[Tensor, "frames rows cols"],
    plan: Plan,
    num_steps: int,
    instruction: str | None,
    visual_weight: float,
) -> TokenSequence:
    """A frame, and as answer the first steps of its plan with their keyframes.

    Args:
        sequence_format: The grammar.
        codes: Of all frames that a plan may name.
        plan: What was recorded from the frame on.
        num_steps: How many steps to answer with, if the plan has so many.
        instruction: Of the episode; None for a sequence without one.
        visual_weight: Loss weight of visual tokens.
    """
    now, steps = codes[plan.frame], plan.steps[:num_steps]
    if instruction is None:
        prompt = sequence_format.unconditional_prompt(now)
    else:
        prompt = sequence_format.imagine_prompt(instruction, now)
    answer = sequence_format.imagine_answer([(step.text, codes[step.keyframe]) for step in steps])
    if not (plan.ends and len(steps) == len(plan.steps)):
        answer = answer[:-2]  # more would follow: the end of the answer is not to be learned here
    return sequence_format.training_sequence(prompt, answer, visual_weight=visual_weight)


def simulate_sequence(
    sequence_format: SequenceFormat,
    codes: Int64[Tensor, "frames rows cols"],
    bins: ActionBins,
    actions: Float[Tensor, "time action_dim"],
    start: int,
    visual_weight: float,
    *,
    changed_weight: float = 1.0,
    conditioned: bool = False,
) -> TokenSequence:
    """A frame and the actions that were carried out from it on, and as answer the frame behind them.

    `conditioned` models read the actions as numbers beside the answer, others as tokens of the prompt. Codes
    that are not what they were weigh `changed_weight` times as much: most of an image stands still.
    """
    now, then = codes[start], codes[start + len(actions)]
    prompt = sequence_format.simulate_prompt(now, None if conditioned else bins.encode(actions))
    answer = sequence_format.simulate_answer(then)
    made = sequence_format.training_sequence(prompt, answer, visual_weight=visual_weight)
    where = len(prompt) + sequence_format.visual_positions(answer)[0]
    made.loss_weight[where[now != then]] *= changed_weight
    return replace(made, actions=bins.features(actions)) if conditioned else made


def token_losses(
    model: nn.Module, batch: TokenBatch, vocabulary: Vocabulary
) -> tuple[Float[Tensor, " targets"], Tensor]:
    """Cross-entropy of every token that has a loss, and which of them are visual."""
    assert isinstance(model, WorldModel)
    wanted = batch.loss_weight[:, 1:] > 0
    added = batch.added(model, batch.images(vocabulary))
    added = None if added is None else added[:, :-1]
    hidden = model.hidden_states(batch.ids[:, :-1], added=added)[wanted]
    targets = batch.ids[:, 1:][wanted]
    return F.cross_entropy(model.logits(hidden), targets, reduction="none"), vocabulary.is_visual(targets)


def next_token_losses(
    model: nn.Module, sequences: Sequence[TokenSequence], vocabulary: Vocabulary, batch_size: int
) -> dict[str, float]:
    """Mean next-token losses of text and of images over sequences."""
    device, losses, visual = next(model.parameters()).device, [], []
    for start in range(0, len(sequences), batch_size):
        batch = padded(sequences[start : start + batch_size], vocabulary.pad).to(device)
        found = token_losses(model, batch, vocabulary)
        losses.append(found[0])
        visual.append(found[1])
    loss, is_visual = torch.cat(losses), torch.cat(visual)
    return {"ar_text_loss": loss[~is_visual].mean().item(), "ar_image_loss": loss[is_visual].mean().item()}


def weighted_mean(losses: Float[Tensor, " targets"], batch: TokenBatch) -> Float[Tensor, ""]:
    """Mean of `token_losses` with the batch's weights."""
    weight = batch.loss_weight[:, 1:][batch.loss_weight[:, 1:] > 0]
    return (losses * weight).sum() / weight.sum()


def loss_metrics(name: str, losses: Float[Tensor, " targets"], visual: Tensor) -> dict[str, float]:
    """Mean losses by kind of token, for the log."""
    metrics = {f"{name}_visual": losses[visual].mean().item()}
    if name == "imagine":
        metrics["text"] = losses[~visual].mean().item()
    return metrics
