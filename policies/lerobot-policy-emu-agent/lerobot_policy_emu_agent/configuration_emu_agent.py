"""Settings of the policy `emu_agent`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig, CosineDecayWithWarmupSchedulerConfig

from emu_agent.errors import ConfigError, lookup
from emu_agent.observation import IMAGE_PREFIX
from emu_agent.world_model.stored_names import current_config

PHASES: dict[str, tuple[str, ...]] = {
    "world": ("world_model",),
    "dida": ("world_model",),
    "action": ("head",),
    "joint": ("world_model", "head"),
}
"""Parts of the agent that each phase of training changes."""
TEXT_TOKENIZER = "text_tokenizer"
"""Key of `EmuAgentConfig.agent` under which the text tokenizer's JSON is kept."""


@PreTrainedConfig.register_subclass("emu_agent")
@dataclass
class EmuAgentConfig(PreTrainedConfig):
    """What to begin with, how to act, and what to train.

    The policy gets and gives the units of the dataset. Statistics of actions and proprioception are part of
    the action head, as everywhere in emu-agent, so that they cannot be combined with weights of another
    dataset; LeRobot's normalizer and unnormalizer are there, because its commands ask for them by name, and
    leave everything as it is.

    Raises:
        ConfigError: A value that cannot work, alone or beside the others.
        CheckpointError: `pretrained_agent` is no agent checkpoint.
    """

    pretrained_agent: str | None = None
    """Folder of the agent checkpoint to begin with; null is the one inside emu-agent."""
    agent: dict[str, Any] = field(default_factory=dict)
    """What that checkpoint says of its parts, and its text tokenizer; kept with the weights from then on."""
    new_head: bool = False
    """Begin with an untrained action head for the dataset's features, in place of the checkpoint's; always
    so if that has none."""
    camera_key: str | None = None
    """Feature with the picture that is imagined; null is the name of the checkpoint's camera."""
    camera_keys: list[str] | None = None
    """Features with images for the action head only, in the order of its cameras; null likewise."""
    wrist_key: str | None = None
    """The same where there is one such feature."""
    embodiment: str | None = None
    """Whose action head acts; null is the checkpoint's only one, or that of its fingerprint."""
    chunk_size: int | None = None
    """Actions in a chunk; null is what the checkpoint's head makes, or 8 if it has none."""

    imagine: str = "adaptive"
    """`never`, `always` (with every chunk) or `adaptive` (when there is a reason)."""
    decoder: str | None = None
    """How keyframes are drawn: `autoregressive` or `dida`; null is the checkpoint's own choice."""
    passes: int | None = None
    """Passes of DiDA over a keyframe; null is what the checkpoint recommends."""
    n_action_steps: int | None = None
    """Actions of a chunk that are carried out before the next one; null is what the checkpoint recommends."""
    seed: int = 1000
    """Seed of the first episode; later ones count on. With the `--seed` of lerobot-eval, which is 1000 if
    nothing is said, an episode is the one that `emu-agent run` plays with its seed."""
    background_imagination: bool = False
    """Imagine in a thread of its own while chunks are made with what was imagined before; with real-time
    chunking always so."""
    save_predicted_video: bool = False
    """Let lerobot-eval write what the first robot of each batch imagined, frame by frame beside its video."""

    phase: str = "action"
    """What is trained: `world` (imagining), `dida` (drawing at once), `action` (the head), `joint` (all)."""
    world_weight: float = 1.0
    """Weight of the next-token loss."""
    dida_weight: float = 1.0
    """Weight of the loss of noisy copies."""
    action_weight: float = 1.0
    """Weight of the action head's loss."""
    optimizer_lr: float = 5e-4
    """Highest learning rate."""
    optimizer_weight_decay: float = 0.05
    """AdamW's decay."""
    optimizer_grad_clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    scheduler_warmup_steps: int = 100
    """Updates over which the learning rate rises; fewer in short trainings."""
    scheduler_decay_steps: int = 10_000
    """Updates over which it falls to a fiftieth; fewer in short trainings."""

    action_feature_names: list[str] | None = None
    """Names of the dataset's action entries, by which LeRobot orders a robot's; filled in by it."""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )
    """What LeRobot's normalizers do: nothing."""

    rtc_config = None
    """Real-time chunking as lerobot-rollout wants it; no setting, but set by it on the finished config."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.agent:
            self.agent = read_agent(self.pretrained_agent, self.embodiment)
        self.agent = current_config(self.agent)  # what LeRobot has saved may have older names
        lookup("phase", self.phase, PHASES)
        lookup("imagine mode", self.imagine, dict.fromkeys(("never", "always", "adaptive")))
        self._check_normalization()
        head = self.agent["parts"].get("head", {})
        self.new_head = self.new_head or not head
        made = head.get("chunk_size", 8)
        size = self.chunk_size = self.chunk_size or made
        if size != made and not self.new_head:
            raise ConfigError(
                f"chunk_size={size}, but the checkpoint's head makes chunks of {made}; "
                "leave chunk_size out, or begin with new_head=true"
            )
        steps = self.n_action_steps or self.agent.get("policy", {}).get("n_action_steps", size // 2)
        if not 0 < steps <= size:
            raise ConfigError(f"n_action_steps={steps} must be from 1 to chunk_size={size}")
        self.n_action_steps = steps
        self.camera_key = self.camera_key or IMAGE_PREFIX + self.agent.get("camera", "agentview")
        if self.camera_keys is None:
            names = head.get("cameras", [head.get("wrist_camera", "wrist")])
            self.camera_keys = [self.wrist_key] if self.wrist_key else [IMAGE_PREFIX + one for one in names]
        if not self.new_head and len(self.camera_keys) != len(head.get("cameras", ["wrist"])):
            raise ConfigError(
                f"camera_keys={self.camera_keys}, but the checkpoint's head reads the cameras "
                f"{head.get('cameras')}: name one feature for each, or begin with new_head=true"
            )

    @property
    def observation_delta_indices(self) -> None:
        """One observation at a time."""
        return

    @property
    def action_delta_indices(self) -> list[int]:
        """A chunk of actions from now on."""
        assert self.chunk_size is not None
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW with the settings above."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=(0.9, 0.95),
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """A linear rise, then a cosine."""
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
            peak_lr=self.optimizer_lr,
            decay_lr=self.optimizer_lr / 50,
        )

    def validate_features(self) -> None:
        """Refuse features that do not fit the checkpoint.

        Raises:
            ConfigError: The message lists both sides, and the mapping of names that might be meant.
        """
        from lerobot_policy_emu_agent.features import refuse_other_features

        refuse_other_features(self)

    def _check_normalization(self) -> None:
        other = {
            name: mode.value
            for name, mode in self.normalization_mapping.items()
            if mode != NormalizationMode.IDENTITY
        }
        if other:
            raise ConfigError(
                f"normalization_mapping={other}: the action head has statistics of its own, so LeRobot's "
                "normalizers must leave everything as it is (IDENTITY)"
            )


def read_agent(folder: str | None, embodiment: str | None = None) -> dict[str, Any]:
    """What an agent checkpoint says of its parts, with its text tokenizer and one head, called `head`.

    Raises:
        CheckpointError: The folder is none, lacks a world model or its text tokenizer, or has no head of the
            embodiment.
    """
    from emu_policies.head.loading import choose_head, head_parts

    from emu_agent.errors import CheckpointError
    from emu_agent.fingerprint import embodiment_of
    from emu_agent.tokens.text import TEXT_FILE
    from emu_agent.world_model.checkpoint import read_config

    source = agent_folder(folder)
    agent = read_config(source)
    if missing := {"image_tokenizer", "world_model"} - set(agent.get("parts", {})):
        raise CheckpointError(f"{source} lacks {sorted(missing)}; a policy needs an agent that can imagine")
    if not (source / TEXT_FILE).exists():
        raise CheckpointError(f"{source} has no {TEXT_FILE}, the text tokenizer of its world model")
    fingerprint, heads = agent.get("fingerprint"), head_parts(agent)
    parts = {name: part for name, part in agent["parts"].items() if name not in heads.values()}
    if heads:
        own = choose_head(heads, embodiment, embodiment_of(fingerprint))
        fingerprint = {**(fingerprint or {}), "embodiment": own} if embodiment else fingerprint
        parts["head"] = agent["parts"][heads[own]]
    text = (source / TEXT_FILE).read_text(encoding="utf-8")
    return {**agent, "parts": parts, "fingerprint": fingerprint, TEXT_TOKENIZER: text}


def agent_folder(folder: str | None) -> Path:
    """The folder of that name, or of the checkpoint inside emu-agent."""
    from emu_agent.world_model.checkpoint import bundled_checkpoint

    return Path(folder) if folder is not None else bundled_checkpoint()
