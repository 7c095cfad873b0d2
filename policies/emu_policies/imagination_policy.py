"""The policy that imagines the next step before it acts."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError, lookup
from emu_agent.observation import Observation
from emu_agent.world_model.checkpoint import load_state, read_config, read_part
from emu_policies.action_head import ActionHead, HeadContext
from emu_policies.action_queue import ActionQueue
from emu_policies.engine import Engine, Imagined, Scene
from emu_policies.head_config import ActionHeadConfig
from emu_policies.replan import ImaginationReason, Pursuit, ReplanConfig, replan_rule


@dataclass(frozen=True, kw_only=True)
class ImaginationPolicyConfig(ReplanConfig):
    """When to imagine, and how much of a chunk to carry out."""

    imagine: str = "adaptive"
    """`never`, `always` (with every chunk) or `adaptive` (when there is a reason)."""
    n_action_steps: int = 4
    """Actions of a chunk that are carried out before the next one is made."""


class ImaginationPolicy:
    """Turns observations into actions with a world model, its imagination and an action head.

    For a batch of observations there is one imagination per row, and all are made at the same time.
    """

    imagination: Imagined | None
    """The latest imagination, if there is one."""
    imagination_reason: ImaginationReason | None
    """Why the latest imagination was made."""
    last_timing: dict[str, float]
    """Milliseconds of what happened in the latest call: `imagine_ms`, `chunk_ms`."""

    def __init__(
        self,
        engine: Engine,
        head: ActionHead,
        config: ImaginationPolicyConfig,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        """Combines trained parts; `fingerprint` describes the environment that they were trained for."""
        if config.n_action_steps > head.config.chunk_size:
            raise ConfigError(
                f"n_action_steps={config.n_action_steps} must not exceed chunk_size={head.config.chunk_size}"
            )
        self.config = config
        self.fingerprint = fingerprint
        self._engine = engine
        self._head = head.eval()
        self._device = head.action_normalizer.mean.device
        self._rule = replan_rule(config.imagine, config)
        self._queue = ActionQueue(config.n_action_steps)
        self.reset(0)

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: Path | str | None = None,
        imagine: str = "adaptive",
        *,
        decoder: str | None = None,
        passes: int | None = None,
        force: bool = False,
        compile: bool = False,
        **settings: Any,
    ) -> "ImaginationPolicy":
        """Loads an agent checkpoint.

        Args:
            checkpoint: Its folder; None is the checkpoint that comes with the package.
            imagine: `never`, `always` or `adaptive`.
            decoder: `autoregressive`, `dida` or `jacobi`; None is what the checkpoint was made for.
            passes: Passes of DiDA over a keyframe; None is what the checkpoint recommends.
            force: Decode by DiDA even if the checkpoint was not adapted to it.
            compile: Compile the steps of decoding: a slow start, and less time for each imagination.
            settings: Fields of `ImaginationPolicyConfig` that replace those of the checkpoint.

        Raises:
            UnknownNameError: If there is no such mode or decoder.
            CheckpointError: If the folder is not an agent checkpoint with an action head.
        """
        from emu_agent.imagination import ImaginationConfig, ImaginationEngine, bundled_checkpoint

        folder = Path(checkpoint) if checkpoint is not None else bundled_checkpoint()
        values = read_config(folder)
        config = ImaginationPolicyConfig.from_dict(
            {**values.get("policy", {}), **settings, "imagine": imagine}
        )
        replan_rule(config.imagine, config)
        imagining = ImaginationConfig(decoder=decoder, passes=passes, force=force, compile=compile)
        engine = ImaginationEngine.from_pretrained(folder, imagining)
        return cls(engine, load_head(folder), config, values.get("fingerprint"))

    @property
    def image_tokenizer(self) -> Any:
        """Turns imagined codes into pixels."""
        return self._engine.image_tokenizer

    def reset(self, seed: int) -> None:
        """Forgets the past episode; the same seed gives the same actions for the same observations."""
        # Two generators: the modes differ in how often they imagine, and shall still act on the same noise.
        self._action_generator = torch.Generator(self._device).manual_seed(2 * seed)
        self._imagination_generator = torch.Generator(self._device).manual_seed(2 * seed + 1)
        self._queue.clear()
        self._age = 0
        self.imagination = None
        self.imagination_reason = None
        self.last_timing = {}

    def select_action(self, observation: Observation) -> Float[Tensor, "batch action_dim"]:
        """The next action of the current chunk; makes a new chunk when the current one is used up."""
        self.last_timing = {}
        if not self._queue:
            self._queue.refill(self.predict_action_chunk(observation))
        return self._queue.pop()

    @torch.no_grad()
    def predict_action_chunk(self, observation: Observation) -> Float[Tensor, "batch chunk action_dim"]:
        """Looks, imagines if there is a reason to, and makes a chunk.

        Raises:
            UnknownNameError: If a camera that the head needs is missing.
            ConfigError: If sizes differ from those that the head was trained with.
        """
        self._check(observation)
        start = self._milliseconds()
        observation = observation.to(self._device)
        scene = self._engine.observe(observation, camera=self._head.config.camera)
        context = self._encode(scene, observation)
        reason = self._rule.reason(self._pursuit(context))
        imagine_ms = 0.0
        if reason is not None:
            imagine_ms = self._imagine(scene, reason)
            context = self._encode(scene, observation)
        chunk = self._head.sample(context, self._action_generator)
        self._age += self.config.n_action_steps
        self.last_timing = {"imagine_ms": imagine_ms} if reason is not None else {}
        self.last_timing["chunk_ms"] = self._milliseconds() - start - imagine_ms
        return chunk

    def _imagine(self, scene: Scene, reason: ImaginationReason) -> float:
        start = self._milliseconds()
        self.imagination = self._engine.imagine(
            scene, steps=1, candidates=1, generator=self._imagination_generator
        )
        self.imagination_reason, self._age = reason, 0
        return self._milliseconds() - start

    def _encode(self, scene: Scene, observation: Observation) -> HeadContext:
        return self._head.encode_context(
            scene.features,
            observation.images[self._head.config.wrist_camera],
            observation.proprio,
            None if self.imagination is None else self.imagination.features[:, 0],
        )

    def _pursuit(self, context: HeadContext) -> Pursuit | None:
        if self.imagination is None:
            return None
        return Pursuit(
            age=self._age,
            trust=self.imagination.image_log_prob[:, 0, 0],
            step_probabilities=self._head.step_probabilities(context),
        )

    def _check(self, observation: Observation) -> None:
        config = self._head.config
        lookup("camera", config.camera, observation.images)
        wrist = lookup("camera", config.wrist_camera, observation.images)
        if wrist.shape[1:3] != (config.wrist_size, config.wrist_size):
            raise ConfigError(
                f"camera {config.wrist_camera!r} gives {tuple(wrist.shape[1:3])} pixels; "
                f"the action head was trained with {(config.wrist_size, config.wrist_size)}"
            )
        if observation.proprio.shape[1] != config.proprio_dim:
            raise ConfigError(
                f"proprioception has {observation.proprio.shape[1]} entries; "
                f"the action head was trained with {config.proprio_dim}"
            )
        if self.imagination is not None and len(self.imagination.features) != observation.batch_size:
            raise ConfigError(
                f"the batch has {observation.batch_size} rows, but the imagination that is pursued has "
                f"{len(self.imagination.features)}; call reset() before the number of rows changes"
            )

    def _milliseconds(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return 1e3 * time.perf_counter()


def load_head(folder: Path | str) -> ActionHead:
    """Loads the action head of an agent checkpoint, its normalizers included.

    Raises:
        CheckpointError: If the folder is not an agent checkpoint, or has no action head.
    """
    values, tensors = read_part(folder, "head")
    head = ActionHead(ActionHeadConfig.from_dict(values))
    load_state(head, tensors, folder)
    return head.eval()
