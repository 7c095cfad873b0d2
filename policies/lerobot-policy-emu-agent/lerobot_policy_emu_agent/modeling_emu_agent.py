"""The policy `emu_agent`: LeRobot's interface around an agent of emu-agent."""

from collections.abc import Mapping
from typing import Any

import torch
from emu_policies import ActionHead, ImaginationPolicy, ImaginationPolicyConfig
from emu_policies.confidence.confidence_score import PART as CONFIDENCE
from emu_policies.head.chunk_prefix import ChunkPrefix
from jaxtyping import Float, UInt8
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from emu_agent.errors import ConfigError
from emu_agent.fingerprint import fingerprint_differences, refuse_other_environment
from emu_agent.observation import Observation
from emu_agent.tokens.text import TEXT_FILE
from emu_agent.world_model.stored_names import current_tensor
from lerobot_policy_emu_agent.configuration_emu_agent import PHASES, TEXT_TOKENIZER, EmuAgentConfig
from lerobot_policy_emu_agent.features import (
    image_size,
    observation_of,
    origin_of,
    own_features,
    refuse_other_rate,
    rows_of,
    use_features,
)
from lerobot_policy_emu_agent.lessons import Lessons
from lerobot_policy_emu_agent.parts import build_engine, build_parts


class EmuAgentPolicy(PreTrainedPolicy):
    """Acts by `emu_policies.ImaginationPolicy`, and learns by the losses of emu-agent's own stages.

    Every robot of a batch has a policy of its own, with its own imagination and its own noise, so that an
    episode is the same whatever it is batched with.
    """

    config_class = EmuAgentConfig  # pyright: ignore[reportAssignmentType] - LeRobot declares None
    name = "emu_agent"  # pyright: ignore[reportAssignmentType] - likewise
    config: EmuAgentConfig

    def __init__(
        self,
        config: EmuAgentConfig,
        dataset_stats: Mapping[str, Mapping[str, Any]] | None = None,
        dataset_meta: Any = None,
        **_: Any,
    ) -> None:
        """Builds the agent, with the weights of `config.pretrained_agent`.

        Raises:
            ConfigError: The features do not fit the checkpoint.
            CheckpointError: The checkpoint's parts do not fit together.
        """
        super().__init__(config)
        self.lessons = Lessons(config, dataset_meta)
        if dataset_meta is not None:
            use_features(config, dataset_meta.features)
        elif not config.input_features and not config.new_head:
            features = own_features(config)
            config.output_features = {ACTION: features.pop(ACTION)}
            config.input_features = features
        config.validate_features()
        if dataset_meta is not None:
            if config.new_head:
                config.agent = {**config.agent, **origin_of(dataset_meta)}
            else:
                refuse_other_rate(config.agent, dataset_meta.fps)
        parts = build_parts(config, dataset_stats)
        for name, part in parts.items():
            self.add_module(name, part)
        self.register_load_state_dict_pre_hook(_with_current_names)
        self.engine = build_engine(config, parts)
        if config.phase == "dida":  # what the agent is adapted to from now on
            config.agent = {**config.agent, "dida": self.engine.dida.to_dict()}
        self._episodes = 0
        self._robots: list[ImaginationPolicy] = []
        self.last_predicted_latents: Tensor | None = None
        self._set_trainable()

    @property
    def action_head(self) -> ActionHead:
        """The part that makes chunks."""
        head = self.get_submodule("head")
        assert isinstance(head, ActionHead)
        return head

    def get_optim_params(self) -> list[torch.nn.Parameter]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the phase of training changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def train(self, mode: bool = True) -> "EmuAgentPolicy":
        """Switches the parts to training that the phase changes; the others stay as they are."""
        super().train(mode)
        for name, part in self.named_children():
            part.train(mode and name in PHASES[self.config.phase])
        return self

    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch, and what it consists of.

        Raises:
            ConfigError: Losses per sample are wanted, which the token losses do not have.
        """
        if reduction != "mean":
            raise ConfigError(
                f"reduction={reduction!r}: emu_agent has no losses per sample; use uniform weights"
            )
        return self.lessons.loss(self.engine, self.action_head, batch)

    def reset(self) -> None:
        """Starts the next episode of every robot."""
        self._episodes += len(self._robots)
        for robot in self._robots:
            robot.close()
        self._robots = []
        self.last_predicted_latents = None

    def select_action(self, batch: dict[str, Any], **_: Any) -> Float[Tensor, "batch action_dim"]:
        """The next action of every robot, in the units of the dataset."""
        rows = self._rows(batch)
        actions = [robot.select_action(row) for robot, row in zip(self._robots, rows, strict=True)]
        self._remember_imagination()
        return torch.cat(actions)

    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: dict[str, Any],
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        **_: Any,
    ) -> Float[Tensor, "batch chunk action_dim"]:
        """A chunk for every robot, in the units of the dataset.

        Args:
            batch: Observations.
            inference_delay: Control steps that will pass until the chunk is there.
            prev_chunk_left_over: What is left of the running chunk, (rows, action_dim), batched or not: the
                new chunk begins with it and departs from it gradually.

        Raises:
            ConfigError: If all of the chunk would come too late.
        """
        rows = self._rows(batch)
        prefix = self._prefix(inference_delay or 0, prev_chunk_left_over)
        if prefix is not None and len(prefix.actions) != len(rows):
            raise ConfigError(
                f"prev_chunk_left_over is for {len(prefix.actions)} robots, but the batch has {len(rows)}"
            )
        chunks = [
            robot.predict_action_chunk(row, None if prefix is None else prefix.row(i))
            for i, (robot, row) in enumerate(zip(self._robots, rows, strict=True))
        ]
        self._remember_imagination()
        return torch.cat(chunks)

    def supports_rtc(self) -> bool:
        """Chunks can continue the one that is being carried out."""
        return True

    def init_rtc_processor(self) -> None:
        """Get ready for real-time chunking.

        From now on imaginations are made in a thread of their own, or every one would delay a chunk. One of
        each is made from nothing: LeRobot never forgets a slow first call.
        """
        self.config.background_imagination = True
        head = self.action_head.config
        picture = torch.zeros(1, 3, *image_size(self.config))
        batch: dict[str, Any] = {OBS_STATE: torch.zeros(1, head.proprio_dim)}
        batch |= {str(key): picture for key in (self.config.camera_key, *(self.config.camera_keys or ()))}
        episodes = self._episodes
        self.reset()
        self.engine.imagine(self._rows(batch)[0], camera=head.camera)
        self.predict_action_chunk(batch)
        self.reset()
        self._episodes = episodes

    def decode_predicted_latents(self, latents: Tensor) -> UInt8[Tensor, "time height width 3"]:
        """What the first robot imagined, as a video: (1, 1, time, rows, cols) codes, one for each action."""
        codes, places = latents[0, 0].to(self.engine.device).unique_consecutive(dim=0, return_inverse=True)
        return self.engine.image_tokenizer.decode(codes)[places].cpu()

    def _rows(self, batch: Mapping[str, Any]) -> list[Observation]:
        """One observation for each robot, and a policy for each, made when the first observation is there."""
        config = self.config
        rows = rows_of(observation_of(batch, config, self.action_head.config))
        if not self._robots:
            here = (batch.get("info") or {}).get("fingerprint")  # our environments put it there
            if here is not None:
                refuse_other_environment(fingerprint_differences(here, config.agent.get("fingerprint")))
            self._robots = [self._robot(self._episodes + i) for i in range(len(rows))]
        if len(rows) != len(self._robots):
            raise ConfigError(
                f"the batch has {len(rows)} robots, but the episode began with {len(self._robots)}; "
                "call reset()"
            )
        return rows

    def _robot(self, episode: int) -> ImaginationPolicy:
        config = self.config
        settings = ImaginationPolicyConfig.from_dict({
            **config.agent.get("policy", {}), "imagine": config.imagine,
            "n_action_steps": config.n_action_steps, "background": config.background_imagination,
        })  # fmt: skip
        confidence = getattr(self, CONFIDENCE, None)
        robot = ImaginationPolicy(self.engine, self.action_head, settings, confidence=confidence)
        robot.reset(config.seed + episode)
        return robot

    def _prefix(self, delay: int, left_over: Tensor | None) -> ChunkPrefix | None:
        head, rtc = self.action_head.config, self.config.rtc_config
        if left_over is None:
            left_over = torch.zeros(1, 0, head.action_dim)
        left_over = left_over[None] if left_over.ndim == 2 else left_over
        horizon = head.chunk_size if rtc is None else rtc.execution_horizon
        device = self.action_head.action_normalizer.mean.device
        return ChunkPrefix.of(left_over.to(device), delay=delay, chunk_size=head.chunk_size, horizon=horizon)

    def _remember_imagination(self) -> None:
        imagination = self._robots[0].imagination
        if self.config.save_predicted_video and imagination is not None:
            self.last_predicted_latents = imagination.codes[:, :1, :1]

    def _set_trainable(self) -> None:
        for name, part in self.named_children():
            part.requires_grad_(name in PHASES[self.config.phase])

    def _save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        super()._save_pretrained(save_directory, *args, **kwargs)
        # With it, the folder is an agent checkpoint for emu-agent's own commands too.
        (save_directory / TEXT_FILE).write_text(self.config.agent[TEXT_TOKENIZER], encoding="utf-8")


def _with_current_names(_: torch.nn.Module, state: dict[str, Any], *__: Any) -> None:
    """Bring what LeRobot has saved of an older version to today's names."""
    for key in list(state):
        state[current_tensor(key)] = state.pop(key)
