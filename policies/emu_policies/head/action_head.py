"""Action head: features of the world model, further cameras and proprioception in, a chunk of actions out."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from emu_policies.head.chunk_decoder import ChunkDecoder, KeysValues
from emu_policies.head.chunk_prefix import ChunkPrefix
from emu_policies.head.context_encoder import ContextEncoder, ContextTokens
from emu_policies.head.head_config import ActionHeadConfig
from emu_policies.head.head_data import HeadBatch
from emu_policies.head.monitor import SubtaskMonitor, SubtaskState
from emu_policies.head.normalizer import Normalizer

SHORTEST_PERIOD, LONGEST_PERIOD = 2e-2, 4.0
"""Periods of the sines that encode a flow time in [0, 1]."""


@dataclass(frozen=True)
class HeadContext:
    """All that the head knows at one control step; reused over the flow steps of a chunk."""

    tokens: ContextTokens
    """What the step monitor compares."""
    keys_values: tuple[KeysValues, ...]
    """What the actions attend to, for each block of the decoder."""


class ActionHead(nn.Module):
    """Predicts action chunks, by flow matching or by regression, and watches the imagined step.

    Flow matching: rectified flow from noise (time 0) to the chunk (time 1), arXiv 2209.03003. Times are drawn
    towards the noise as in pi0, arXiv 2410.24164, appendix B. The network predicts the clean chunk, not the
    velocity, as in arXiv 2511.13720. Regression: learned queries, L1 loss.
    """

    def __init__(
        self,
        config: ActionHeadConfig,
        action_normalizer: Normalizer | None = None,
        proprio_normalizer: Normalizer | None = None,
    ) -> None:
        """Builds an untrained head; normalizers may be left out when weights are loaded afterwards."""
        super().__init__()
        self.config = config
        self.action_normalizer = action_normalizer or Normalizer.identity(config.action_dim)
        self.context_encoder = ContextEncoder(
            config, proprio_normalizer or Normalizer.identity(config.proprio_dim)
        )
        self.decoder = ChunkDecoder(config)
        self.monitor = SubtaskMonitor(config.dim)
        if config.kind == "flow":
            self.noisy_action = nn.Linear(config.action_dim, config.dim)
            self.mix_time = nn.Sequential(
                nn.Linear(2 * config.dim, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim)
            )

    def encode_context(
        self,
        frame_features: Float[Tensor, "batch frame_tokens feature_dim"],
        images: UInt8[Tensor, "batch cameras height width 3"],
        proprio: Float[Tensor, "batch proprio_dim"],
        imagination_features: Float[Tensor, "batch imagination_tokens feature_dim"] | None = None,
        present: Bool[Tensor, "batch cameras"] | None = None,
        without: Bool[Tensor, "#batch 2"] | None = None,
    ) -> HeadContext:
        """Encodes an observation and, where there is one, the imagination that is being active.

        The actions do `without` its text or its keyframe; the monitor sees both.
        """
        encode = self.context_encoder
        tokens = encode(frame_features, images, proprio, imagination_features, present=present)
        return self._context(tokens, without)

    def subtask_probabilities(self, context: HeadContext) -> Float[Tensor, "batch states"]:
        """Probabilities of `SubtaskState`; only meaningful for a context with an imagination."""
        return self.monitor(context.tokens).softmax(dim=-1)

    @torch.no_grad()
    def sample(
        self,
        context: HeadContext,
        generator: torch.Generator | None = None,
        prefix: ChunkPrefix | None = None,
    ) -> Float[Tensor, "batch chunk action_dim"]:
        """Draws one chunk per row, in the units of the dataset and within its limit.

        With a prefix, the clean chunk that the network sees behind the noise is blended with it before every
        step of the flow (as arXiv 2212.00490 does for images), so that the rest of the chunk fits it; the
        guidance of real-time chunking has the same aim and needs a backward pass for each step.
        """
        if prefix is not None:
            prefix = replace(prefix, actions=self.action_normalizer(prefix.actions))
        if self.config.kind == "flow":
            chunk = self._integrate(context, generator, prefix)
        else:
            chunk = self._regress(context)
            chunk = chunk if prefix is None else prefix.impose(chunk)
        actions = self.action_normalizer.unnormalize(chunk[:, 0])
        limit = self.config.action_limit
        return actions if limit is None else actions.clamp(-limit, limit)

    def forward(self, **tensors: Tensor) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss of a batch that is given by the names of the fields of `HeadBatch`."""
        return self.loss(HeadBatch(**tensors))

    def loss(
        self, batch: HeadBatch, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Action loss plus weighted monitor loss, and both with the monitor's accuracy as metrics.

        The monitor always sees the imagination of the batch. The actions do without it in a share of the rows
        (`imagination_dropout`), and wherever it is stale: it would tell them something wrong.
        """
        tokens = self.context_encoder(
            batch.frame_features, batch.images, batch.proprio, batch.imagination_features, generator
        )
        logits = self.monitor(tokens)
        monitor_loss = F.cross_entropy(logits, batch.monitor_label)
        context = self._context(tokens, self._without_imagination(batch, generator))
        action_loss = self._action_loss(batch, context, generator)
        accuracy = (logits.argmax(dim=-1) == batch.monitor_label).float().mean()
        loss = action_loss + self.config.monitor_weight * monitor_loss
        metrics = {"loss": loss, "action_loss": action_loss, "monitor_loss": monitor_loss}
        return loss, {k: v.detach() for k, v in metrics.items()} | {"monitor_accuracy": accuracy}

    def _context(self, tokens: ContextTokens, without: Bool[Tensor, "#batch 2"] | None) -> HeadContext:
        shown = tokens if without is None else self.context_encoder.forget_imagination(tokens, without)
        return HeadContext(tokens, self.decoder.keys_values(shown.cat()))

    def _without_imagination(
        self, batch: HeadBatch, generator: torch.Generator | None
    ) -> Bool[Tensor, "batch 2"]:
        """Which rows do without text and keyframe: both at once, or in training also one of the two."""
        both = batch.monitor_label == SubtaskState.STALE
        if not self.training:
            return both[:, None].expand(-1, 2)
        draws = torch.rand(len(both), 3, generator=generator, device=both.device)
        both = both | (draws[:, 0] < self.config.imagination_dropout)
        one = draws[:, 1:2] < self.config.part_dropout
        return both[:, None] | (one & torch.stack((draws[:, 2] < 0.5, draws[:, 2] >= 0.5), 1))

    def _action_loss(
        self, batch: HeadBatch, context: HeadContext, generator: torch.Generator | None
    ) -> Float[Tensor, ""]:
        actions = self.action_normalizer(batch.actions)[:, None]
        if self.config.kind == "flow":
            error = self._flow_error(actions, batch.action_valid, context, generator)
        else:
            error = (self._regress(context, batch.action_valid) - actions).abs()
        weight = batch.action_valid[:, None, :, None].expand_as(error)
        return torch.where(weight, error, 0.0).sum() / weight.sum().clamp(min=1)

    def _flow_error(
        self,
        actions: Float[Tensor, "batch 1 chunk action_dim"],
        action_valid: Bool[Tensor, "batch chunk"],
        context: HeadContext,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "batch draws chunk action_dim"]:
        shape = (len(actions), self.config.flow_draws, *actions.shape[2:])
        noise = torch.randn(shape, generator=generator, device=actions.device)
        time = draw_times(shape[:2], actions.device, generator)
        noisy = torch.lerp(noise, actions.expand(shape), time[:, :, None, None])
        # Not divided by the remaining time: nearly clean chunks would drown those that need the context.
        return (self._denoise(noisy, time, context, action_valid) - actions).square()

    def _denoise(
        self,
        noisy: Float[Tensor, "batch draws chunk action_dim"],
        time: Float[Tensor, "batch draws"],
        context: HeadContext,
        action_valid: Bool[Tensor, "batch chunk"] | None = None,
    ) -> Float[Tensor, "batch draws chunk action_dim"]:
        actions = self.noisy_action(noisy)
        times = encode_time(time, self.config.dim)[:, :, None].expand_as(actions)
        queries = self.mix_time(torch.cat([actions, times], dim=-1))
        return self.decoder(queries, context.keys_values, action_valid)

    def _integrate(
        self, context: HeadContext, generator: torch.Generator | None, prefix: ChunkPrefix | None
    ) -> Float[Tensor, "batch 1 chunk action_dim"]:
        device, batch = context.tokens.proprio.device, len(context.tokens.proprio)
        shape = (batch, 1, self.config.chunk_size, self.config.action_dim)
        actions = torch.randn(shape, generator=generator, device=device)
        for steps_left in range(self.config.num_flow_steps, 0, -1):
            time = torch.full((batch, 1), 1.0 - steps_left / self.config.num_flow_steps, device=device)
            clean = self._denoise(actions, time, context)
            clean = clean if prefix is None else prefix.impose(clean)
            # An Euler step along (clean - noisy) / (1 - time); the last one ends at the clean chunk.
            actions = actions + (clean - actions) / steps_left
        return actions

    def _regress(
        self, context: HeadContext, action_valid: Bool[Tensor, "batch chunk"] | None = None
    ) -> Float[Tensor, "batch 1 chunk action_dim"]:
        # The decoder adds the learned query of each place in the chunk.
        shape = (len(context.tokens.proprio), 1, self.config.chunk_size, self.config.dim)
        queries = torch.zeros(shape, device=context.tokens.proprio.device)
        return self.decoder(queries, context.keys_values, action_valid)


def draw_times(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """Flow times of training: 1 - time is Beta(1.5, 1), which favours noisy chunks."""
    uniform = torch.rand(shape, generator=generator, device=device)
    return 1.0 - uniform ** (1.0 / 1.5)


def encode_time(time: Float[Tensor, "*batch"], dim: int) -> Float[Tensor, "*batch dim"]:
    """Sines and cosines of a time, with periods spread evenly on a logarithmic scale."""
    exponents = torch.linspace(0.0, 1.0, dim // 2, device=time.device)
    periods = SHORTEST_PERIOD * (LONGEST_PERIOD / SHORTEST_PERIOD) ** exponents
    angles = time[..., None] * (2.0 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
