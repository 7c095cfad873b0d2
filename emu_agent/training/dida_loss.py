"""The loss of DiDA: codes are guessed from noisy copies of pictures that stand behind their sequences."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from emu_agent.decoding.noise import HIDDEN, DidaConfig, MetricPath, hide, random_times
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.sequences import TokenBatch
from emu_agent.world_model.dida_mask import DidaLayout, dida_layout, image_spans, training_mask
from emu_agent.world_model.transformer import WorldModel


class NoisyPass(NamedTuple):
    """What one pass over clean streams and noisy copies gives."""

    loss: Float[Tensor, ""]
    """Cross-entropy of the guessed codes."""
    hidden: Float[Tensor, "batch length hidden_size"]
    """Hidden states; those of the clean streams are what they would be without the copies."""


@dataclass(frozen=True)
class DidaLoss:
    """Makes noisy copies and scores what the model guesses behind the noise.

    Args:
        vocabulary: Of the sequences.
        dida: Kind of noise and its schedule.
        copies: Noisy copies of each image, at different times; of one with branches, one of each of them.
        full_noise: Share of the pictures that are nothing but noise.
    """

    vocabulary: Vocabulary
    dida: DidaConfig
    copies: int
    full_noise: float

    def layout(self, batch: TokenBatch) -> DidaLayout:
        """Each clean stream with copies of the images that are learned behind it, still without noise."""
        rows = [(one, *one.branches) if one.branches else (one,) * self.copies for one in batch.sequences]
        images = [
            [span for one in row for span in image_spans(one.ids, one.loss_weight, self.vocabulary)]
            for row in rows
        ]
        return dida_layout(batch.ids, images, self.vocabulary.pad)

    def noisy_pass(
        self,
        model: WorldModel,
        layout: DidaLayout,
        codebook: Float[Tensor, "codes dim"],
        generator: torch.Generator,
        batch: TokenBatch,
    ) -> NoisyPass:
        """Corrupt the copies, read everything once, and guess the codes that noise has changed or hidden."""
        noisy = layout.noisy_codes(self.vocabulary)
        codes = self.vocabulary.codes(layout.ids[noisy])
        corrupted = self._corrupt(codes, layout, noisy, codebook, generator)
        ids = layout.ids.masked_scatter(noisy, self._ids(corrupted))
        answers = layout.image >= 0
        answers[:, : layout.clean_length] |= batch.images(self.vocabulary)
        added = batch.added(model, answers, layout.image)
        hidden = model.arranged_states(ids, layout.positions, training_mask(layout), added)
        # The slot before a code predicts it, as everywhere.
        logits = model.logits(hidden[noisy.roll(-1, dims=1)], self.vocabulary.visual)
        wanted = (
            corrupted == HIDDEN if self.dida.noise == "mask" else torch.ones_like(codes, dtype=torch.bool)
        )
        guesses = F.cross_entropy(logits, codes, reduction="none")
        weight = layout.weight[noisy] * wanted
        return NoisyPass((guesses * weight).sum() / weight.sum().clamp(min=1e-6), hidden)

    def _corrupt(
        self,
        codes: Int64[Tensor, " slots"],
        layout: DidaLayout,
        noisy: Bool[Tensor, "batch length"],
        codebook: Float[Tensor, "codes dim"],
        generator: torch.Generator,
    ) -> Int64[Tensor, " slots"]:
        """Noise of a time of its own for every image."""
        count = len(layout.ids) * layout.num_images
        times = random_times(count, self.dida.shift, generator)
        chance = torch.rand(count, generator=generator, device=times.device)
        times = times.masked_fill(chance < self.full_noise, 0.0).view(len(layout.ids), -1)
        when = times.gather(1, layout.image.clamp(min=0))[noisy]
        if self.dida.noise == "mask":
            return hide(codes, when, generator)
        return MetricPath(codebook.to(codes.device), self.dida).corrupt(codes, when, generator)

    def _ids(self, codes: Int64[Tensor, " slots"]) -> Int64[Tensor, " slots"]:
        ids = codes + self.vocabulary.visual.start
        return (
            ids if self.vocabulary.noise is None else ids.masked_fill(codes == HIDDEN, self.vocabulary.noise)
        )
