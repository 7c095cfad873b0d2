"""What goes into imagining and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from emu_agent.decoding.autoregressive import Keyframe, StepText
from emu_agent.decoding.decoders import DECODERS
from emu_agent.decoding.noise import DidaConfig
from emu_agent.decoding.sampling import GREEDY, SamplingConfig
from emu_agent.errors import CheckpointError, ConfigError, lookup
from emu_agent.tokens.image import ImageTokenizer
from emu_agent.tokens.text import TextTokenizer
from emu_agent.world_model.cache import KVCache

VARIED = SamplingConfig(temperature=1.0, top_p=0.95)


@dataclass(frozen=True, kw_only=True)
class ImaginationConfig:
    """How to imagine, when a caller does not say otherwise."""

    text: SamplingConfig = GREEDY
    """How step instructions are chosen."""
    image: SamplingConfig = GREEDY
    """How the codes of keyframes are chosen for a single candidate."""
    candidate_image: SamplingConfig = VARIED
    """How they are chosen when there are several candidates, which should differ."""
    guidance_scale: float | None = None
    """Strength of classifier-free guidance on keyframes; None does without the second set of rows."""
    max_text_tokens: int = 32
    """Longest step instruction [tokens]."""
    decoder: str | None = None
    """How keyframes are drawn: `autoregressive` or `dida`; None is the checkpoint's own choice."""
    passes: int | None = None
    """Passes of DiDA over a keyframe; None is what the checkpoint recommends."""
    force: bool = False
    """Decode by DiDA even if the checkpoint was not adapted to it."""
    compile: bool = False
    """Compile the steps of decoding: the first imagination takes minutes, later ones less time."""

    def __post_init__(self) -> None:
        if self.decoder is not None:
            lookup("decoder", self.decoder, DECODERS)
        if self.passes is not None and self.passes < 1:
            raise ConfigError(f"passes={self.passes} must be at least 1, or null for the checkpoint's own")

    def choose(self, adapted: DidaConfig | None) -> tuple[str, DidaConfig]:
        """The decoder, and DiDA's settings, for a checkpoint that was adapted in this way or not at all.

        Raises:
            CheckpointError: it was not, but shall decode by DiDA.
            ConfigError: `passes` are set for a decoder that has none.
        """
        decoder = self.decoder or ("autoregressive" if adapted is None else "dida")
        if decoder == "dida" and adapted is None and not self.force:
            raise CheckpointError(
                "this checkpoint was not adapted to DiDA; adapt it by `emu-agent train stage=dida`, use "
                "decoder=autoregressive, or set force=true to try all the same"
            )
        if decoder != "dida" and self.passes is not None:
            raise ConfigError(f"passes={self.passes} is for decoder=dida; decoder={decoder} has no passes")
        settings = adapted or DidaConfig()
        return decoder, settings if self.passes is None else replace(settings, passes=self.passes)


@dataclass(frozen=True)
class Context:
    """What the model makes of an observation, ready to be continued; never changed by imagining."""

    cache: KVCache
    """Rows of the observation; with guidance, their unconditional twins follow."""
    codes: Int64[Tensor, "batch rows cols"]
    """Codes of the current frame."""
    features: Float[Tensor, "batch codes hidden_size"]
    """Hidden states at the visual tokens of the current frame."""


@dataclass(frozen=True)
class Imagination:
    """Imagined futures: candidates of one or more steps, each an instruction and a keyframe."""

    text: tuple[tuple[tuple[str, ...], ...], ...]
    """Step instructions by row, candidate and step."""
    codes: Int64[Tensor, "batch candidates steps rows cols"]
    """Codes of the keyframes."""
    text_log_prob: Float[Tensor, "batch candidates steps"]
    """Mean log-probability of the tokens of a step instruction."""
    image_log_prob: Float[Tensor, "batch candidates steps"]
    """Mean log-probability of the codes of a keyframe: how sure the model is of it."""
    features: Float[Tensor, "batch candidates tokens hidden_size"]
    """Mean hidden state of the first step's text, then the hidden states at the codes of its keyframe."""

    @classmethod
    def of(
        cls, made: Sequence[tuple[StepText, Keyframe]], words: Sequence[Sequence[str]], candidates: int
    ) -> "Imagination":
        """Put together what was decoded step by step, with the candidates of a row one after the other."""
        first_text, first_frame = made[0]
        batch = len(words[0]) // candidates
        features = torch.cat([first_text.hidden[:, None], first_frame.hidden], dim=1)

        def grouped(values: list[Tensor]) -> Tensor:
            return torch.stack(values, dim=1).unflatten(0, (batch, candidates))

        rows = [tuple(step[row] for step in words) for row in range(len(words[0]))]
        return cls(
            text=tuple(tuple(rows[b * candidates : (b + 1) * candidates]) for b in range(batch)),
            codes=grouped([frame.codes for _, frame in made]),
            text_log_prob=grouped([text.log_prob for text, _ in made]),
            image_log_prob=grouped([frame.log_prob for _, frame in made]),
            features=features.unflatten(0, (batch, candidates)),
        )

    def pixels(self, tokenizer: ImageTokenizer) -> UInt8[Tensor, "batch candidates steps height width 3"]:
        """Decode the keyframes."""
        images = tokenizer.decode(self.codes.flatten(0, 2))
        return images.unflatten(0, self.codes.shape[:3])


def require_words_fit(
    tokenizer: TextTokenizer, instructions: Sequence[str], prompts: Sequence[Sequence[int]], room: int
) -> None:
    """Refuse instructions whose prompts are longer than a model has room for.

    Raises:
        ConfigError: One is; the message says how many tokens it has and how many fit.
    """
    for instruction, prompt in zip(instructions, prompts, strict=True):
        if len(prompt) > room:
            count = len(tokenizer.encode(instruction))
            raise ConfigError(
                f"the instruction has {count} tokens, and at most {max(0, count + room - len(prompt))} fit "
                "beside a frame and a keyframe: say it in fewer words"
            )
