"""How likely is it that the present imagination will be achieved?

Cheap signals of four kinds are combined into one probability: how sure the world model was (its
log-probabilities), whether other futures would do as well (disagreement of candidates), whether the actions
go where the keyframe asks for (linear inverse dynamics), and whether reality is what was foreseen (progress
towards the keyframe, changes where none were expected, codes that are rare in their place).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from emu_agent.errors import ConfigError
from emu_agent.stored import Settings
from emu_agent.world_model.checkpoint import load_state, read_config, read_part
from emu_policies.head.normalizer import Normalizer

PART = "confidence"
"""Name of the part of a checkpoint."""
SIGNALS = {
    "image_log_prob": "mean log-probability of the keyframe's codes",
    "text_log_prob": "mean log-probability of the step instruction",
    "disagreement": "share of codes in which other candidates differ from the keyframe",
    "progress": "share of the codes that were to change which are as in the keyframe now",
    "drift": "share of the codes that were to stay which are not as they were",
    "rarity": "mean surprise at the codes of the frame, given how often each stands in its place",
    "rarest": "the same over the eighth of the cells that are most surprising",
    "rarity_change": "how much more surprising the frame is than the one that was imagined from",
    "inverse_dynamics": "gap between the latest actions and those that the keyframe asked for",
    "done": "probability of the step monitor that the step is done; before its time that is a mistake",
    "stale": "its probability that the imagination does not fit",
    "age": "control steps since the imagination was made",
}
"""What the score is made from, in order, and what it is."""
SMOOTHING = 0.1
"""Added to every count of a code in a place, so that none is impossible."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceConfig(Settings):
    """Sizes of a confidence score."""

    signals: Sequence[str] = tuple(SIGNALS)
    """What it was fitted to, in order; a checkpoint of other signals is another version's."""
    candidates: int = 2
    """Further futures that are drawn with every imagination, to see whether they agree; 0 saves the time."""
    num_cells: int = 64
    """Codes of a frame."""
    num_codes: int = 1024
    """Entries of the codebook."""
    cell_dim: int = 6
    """Numbers to which a code is reduced for the inverse dynamics."""
    action_dim: int = 7
    """Number of entries of an action."""
    horizon: int = 20
    """Control steps within which an imagined step should be done."""
    hidden: int = 16
    """Units between the signals and the score."""

    def __post_init__(self) -> None:
        if list(self.signals) != list(SIGNALS):
            raise ConfigError(
                f"the confidence score was fitted to the signals {list(self.signals)}, this version reads "
                f"{list(SIGNALS)}; fit it again by `emu-agent train stage=confidence`"
            )
        if self.candidates < 0 or self.horizon < 1:
            raise ConfigError(
                f"candidates={self.candidates} must be 0 or more, and horizon={self.horizon} at least 1"
            )


class ConfidenceScore(nn.Module):
    """The tables that the signals are read with, and a small network on the signals.

    What a signal says depends on the others: that a step is said to be done is good news late and bad news
    early. A logistic regression cannot tell.
    """

    surprise: Tensor
    code_features: Tensor
    inverse_weight: Tensor
    inverse_bias: Tensor
    action_std: Tensor

    def __init__(self, config: ConfidenceConfig) -> None:
        """Builds a score that knows nothing yet."""
        super().__init__()
        self.config = config
        self.register_buffer("surprise", torch.zeros(config.num_cells, config.num_codes))
        self.register_buffer("code_features", torch.zeros(config.num_codes, config.cell_dim))
        width = 2 * config.num_cells * config.cell_dim
        self.register_buffer("inverse_weight", torch.zeros(width, config.action_dim))
        self.register_buffer("inverse_bias", torch.zeros(config.action_dim))
        self.register_buffer("action_std", torch.ones(config.action_dim))
        self.normalizer = Normalizer.identity(len(config.signals))
        self.hidden = nn.Linear(len(config.signals), config.hidden)
        self.output = nn.Linear(config.hidden, 1)

    def forward(self, signals: Float[Tensor, "batch signals"]) -> Float[Tensor, " batch"]:
        """Logits that the imaginations will be achieved."""
        return self.output(F.silu(self.hidden(self.normalizer(signals).clamp(-4.0, 4.0))))[:, 0]

    def rarity(self, codes: Int64[Tensor, "batch rows cols"]) -> Float[Tensor, "batch 2"]:
        """Mean surprise at the codes of frames: over all cells, and over the most surprising eighth."""
        flat = codes.flatten(1)
        surprise = self.surprise.expand(len(flat), -1, -1).gather(2, flat[..., None])[..., 0]
        worst = surprise.topk(max(1, flat.shape[1] // 8), dim=1).values
        return torch.stack([surprise.mean(dim=1), worst.mean(dim=1)], dim=1)

    def wanted_action(
        self, codes: Int64[Tensor, "batch rows cols"], keyframe: Int64[Tensor, "batch rows cols"]
    ) -> Float[Tensor, "batch action_dim"]:
        """The mean action of the next chunk on the way from a frame to a keyframe."""
        pair = [self.code_features[each.flatten(1)].flatten(1) for each in (codes, keyframe)]
        return torch.cat(pair, dim=1) @ self.inverse_weight + self.inverse_bias

    @torch.no_grad()
    def fit_tables(
        self,
        codes: Int64[Tensor, "frames rows cols"],
        codebook: Float[Tensor, "codes code_dim"],
        pairs: tuple[Int64[Tensor, " pairs"], Int64[Tensor, " pairs"]],
        actions: Float[Tensor, "pairs action_dim"],
    ) -> None:
        """Fit what is not learned by descent.

        Args:
            codes: of the training frames.
            codebook: vectors of the codes.
            pairs: frames, and the keyframes of the active subtasks.
            actions: mean action of the next chunk in these frames.
        """
        cells = torch.arange(self.config.num_cells).expand(len(codes), -1)
        counts = torch.full_like(self.surprise, SMOOTHING)
        counts.index_put_((cells, codes.flatten(1)), torch.ones(cells.shape), accumulate=True)
        self.surprise.copy_(-(counts / counts.sum(dim=1, keepdim=True)).log())
        centred = codebook - codebook.mean(dim=0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        self.code_features.copy_(centred @ directions[: self.config.cell_dim].T)
        self.action_std.copy_(actions.std(dim=0).clamp(min=0.05))
        frame, keyframe = (self.code_features[codes[index].flatten(1)].flatten(1) for index in pairs)
        weight, bias = ridge(torch.cat([frame, keyframe], dim=1), actions)
        self.inverse_weight.copy_(weight)
        self.inverse_bias.copy_(bias)


def ridge(
    inputs: Float[Tensor, "samples size"], targets: Float[Tensor, "samples outputs"], strength: float = 0.01
) -> tuple[Float[Tensor, "size outputs"], Float[Tensor, " outputs"]]:
    """Linear regression with a penalty of `strength` times the mean variance of the inputs."""
    mean_in, mean_out = inputs.mean(dim=0), targets.mean(dim=0)
    x, y = (inputs - mean_in).double(), (targets - mean_out).double()
    gram = x.T @ x / len(x)
    penalty = strength * gram.diagonal().mean().clamp(min=1e-9) * torch.eye(len(gram), dtype=x.dtype)
    weight = torch.linalg.solve(gram + penalty, x.T @ y / len(x)).float()
    return weight, mean_out - mean_in @ weight


def load_confidence(folder: Path | str) -> ConfidenceScore | None:
    """The confidence score of a checkpoint, or None if it was given none.

    Raises:
        CheckpointError: The folder is no agent checkpoint, or the score is damaged.
    """
    if PART not in read_config(folder).get("parts", {}):
        return None
    values, tensors = read_part(folder, PART)
    score = ConfidenceScore(ConfidenceConfig.from_dict(values))
    load_state(score, tensors, folder)
    return score.eval()
