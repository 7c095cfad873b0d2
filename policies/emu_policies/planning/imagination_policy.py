"""The policy that imagines the next step before it acts."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError, lookup
from emu_agent.fingerprint import embodiment_of
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Context, Imagination, ImaginationConfig
from emu_agent.observation import Observation
from emu_agent.world_model.checkpoint import read_config, weights_digest
from emu_policies.confidence.confidence_meter import ConfidenceMeter
from emu_policies.confidence.confidence_score import ConfidenceScore, load_confidence
from emu_policies.head.action_head import ActionHead, HeadContext
from emu_policies.head.camera_images import camera_images
from emu_policies.head.chunk_prefix import ChunkPrefix
from emu_policies.head.loading import choose_head, load_heads
from emu_policies.planning.arms import ARMS, SOURCES
from emu_policies.planning.background import BackgroundImagination
from emu_policies.planning.replan import ActiveSubgoal, ImaginationReason, ReplanConfig
from emu_policies.planning.typed_subtask import check_subtask


@dataclass(frozen=True, kw_only=True)
class ImaginationPolicyConfig(ReplanConfig):
    """When to imagine, and how much of a chunk to carry out."""

    n_action_steps: int = 4
    """Actions of a chunk that are carried out before the next one is made."""
    background: bool = False
    """Imagine in a thread of its own: a chunk never waits, and knows what was finished before it was asked
    for. How often is imagined then depends on the machine, and so do the actions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(lambda value: value >= 1, "be at least 1", "n_action_steps")


class ImaginationPolicy:
    """Turns observations into actions with a world model, its imagination and an action head.

    For a batch of observations there is one imagination per row, and all are made at the same time.
    """

    imagination: Imagination | None
    """The latest imagination, if there is one."""
    imagination_reason: ImaginationReason | None
    """Why the latest imagination was made."""
    subtask: str | None = None
    """What a person has told to do next; None where the model says it."""
    weights: str | None = None
    """What tells the weights of a checkpoint from others."""
    last_timing: dict[str, float]
    """Milliseconds of what happened in the latest call: `imagine_ms`, `chunk_ms`."""

    def __init__(
        self,
        engine: ImaginationEngine,
        head: ActionHead | Mapping[str, ActionHead],
        config: ImaginationPolicyConfig,
        fingerprint: Mapping[str, Any] | None = None,
        confidence: ConfidenceScore | None = None,
        *,
        compare: bool | None = None,
        embodiment: str | None = None,
    ) -> None:
        """Combines trained parts.

        Args:
            engine: Looks and imagines.
            head: Acts; or several heads by embodiment, of which `use_embodiment` chooses.
            config: When to imagine.
            fingerprint: Describes the environment that the parts were trained for.
            confidence: Says how likely an imagination is to be achieved; for engines with visual tokens.
            compare: Whether the confidence score has further candidates drawn, which cost as much as the
                imagination; None has them where a threshold depends on them, and no chunk waits for them.
            embodiment: Whose head acts; None is the only one, or that of the fingerprint.

        Raises:
            ConfigError: If settings do not go together.
        """
        own = embodiment_of(fingerprint)
        self._heads = {own: head.eval()} if isinstance(head, ActionHead) else dict(head)
        self.embodiment = choose_head(self._heads, embodiment, own)
        short = min(one.config.chunk_size for one in self._heads.values())
        if config.n_action_steps > short:
            raise ConfigError(f"n_action_steps={config.n_action_steps} must not exceed chunk_size={short}")
        if config.confidence_threshold is not None and confidence is None:
            raise ConfigError(
                f"confidence_threshold={config.confidence_threshold} needs a checkpoint with a score: "
                "`emu-agent train stage=confidence` fits one"
            )
        self.config = config
        self.fingerprint = fingerprint
        self._engine = engine
        self._arm, self._source, self._env = ARMS[config.imagine], None, None
        if self._arm.source != "model" and config.background:
            raise ConfigError(f"imagine={config.imagine} asks the simulation: it cannot go on in background")
        self._device = self._head.action_normalizer.mean.device
        self._queue: deque[Tensor] = deque()
        self._background = BackgroundImagination(engine, self._device) if config.background else None
        self._meter = None if confidence is None else ConfidenceMeter(confidence.to(self._device), engine)
        depends = config.imagine == "adaptive" and config.confidence_threshold is not None
        self._compare = depends and not config.background if compare is None else compare
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
        embodiment: str | None = None,
        **settings: Any,
    ) -> "ImaginationPolicy":
        """Loads an agent checkpoint.

        Args:
            checkpoint: Its folder; None is the checkpoint that comes with the package.
            imagine: `never`, `always` or `adaptive`; or an arm of experiments, see `planning.arms`.
            decoder: `autoregressive` or `dida`; None is what the checkpoint was made for.
            passes: Passes of DiDA over a keyframe; None is what the checkpoint recommends.
            force: Decode by DiDA even if the checkpoint was not adapted to it.
            compile: Compile the steps of decoding: a slow start, and less time for each imagination.
            embodiment: Whose head acts; None is that of the environment, as `bind` tells it.
            settings: Fields of `ImaginationPolicyConfig` that replace those of the checkpoint.

        Raises:
            UnknownNameError: If there is no such mode or decoder.
            CheckpointError: If the folder is not an agent checkpoint with an action head.
        """
        from emu_agent.world_model.checkpoint import bundled_checkpoint

        folder = Path(checkpoint) if checkpoint is not None else bundled_checkpoint()
        values = read_config(folder)
        config = ImaginationPolicyConfig.from_dict(
            {**values.get("policy", {}), **settings, "imagine": imagine}
        )
        imagining = ImaginationConfig(decoder=decoder, passes=passes, force=force, compile=compile)
        engine = ImaginationEngine.from_pretrained(folder, imagining)
        confidence, fingerprint = load_confidence(folder), values.get("fingerprint")
        policy = cls(engine, load_heads(folder), config, fingerprint, confidence, embodiment=embodiment)
        policy.weights = weights_digest(folder)
        return policy

    @property
    def _head(self) -> ActionHead:
        return self._heads[self.embodiment]

    def bind(self, env: Any) -> None:
        """Get ready for an environment: the head of its embodiment acts, if it tells which that is.

        Raises:
            CheckpointError: there is no head for it; the message lists those there are.
            ConfigError: the arm asks a copy of the simulation, and there is none.
        """
        if (embodiment := getattr(env.unwrapped, "embodiment", None)) is not None:
            self.use_embodiment(embodiment)
        if self._arm.source != "model" and env is not self._env:
            make = SOURCES[self._arm.source]
            self._source, self._env = make(self._engine, self._head.config.camera, env), env

    def use_embodiment(self, embodiment: str) -> None:
        """Let the head of this embodiment act from now on.

        Raises:
            CheckpointError: there is no such head; the message lists those there are.
        """
        self.embodiment = choose_head(self._heads, embodiment, embodiment)

    @property
    def known_subtasks(self) -> tuple[str, ...] | None:
        """Those of the training, empty if the checkpoint does not say; None where nothing is imagined."""
        return None if self.config.imagine == "never" else self._engine.subtasks

    def use_subtask(self, text: str | None) -> None:
        """Do next what a person says, in place of what the model would say, from the next chunk on.

        Args:
            text: In the words of the training data; others are warned of. None lets the model choose again.

        Raises:
            ConfigError: Nothing is imagined, or the text is too long.
        """
        if text == self.subtask:
            return
        if text is not None:
            check_subtask(text, self.known_subtasks)
        self.subtask, self.imagination = text, None
        self._queue.clear()
        if self._background is not None:
            self._background.forget()

    @property
    def image_tokenizer(self) -> Any:
        """Turns imagined codes into pixels."""
        return self._engine.image_tokenizer

    @property
    def confidence(self) -> Float[Tensor, " batch"] | None:
        """Probability that the imagination will be achieved; None without a score or an imagination."""
        return None if self._meter is None else self._meter.probability

    @property
    def confidence_signals(self) -> Float[Tensor, "batch signals"] | None:
        """What `confidence` was made from, with every new chunk."""
        return None if self._meter is None else self._meter.signals

    def reset(self, seed: int) -> None:
        """Forgets the past episode; the same seed gives the same actions for the same observations."""
        # Two generators: the modes differ in how often they imagine, and shall still act on the same noise.
        self._action_generator = torch.Generator(self._device).manual_seed(2 * seed)
        self._imagination_generator = torch.Generator(self._device).manual_seed(2 * seed + 1)
        self._queue.clear()
        if self._source is not None:
            self._source.begin(seed)
        if self._background is not None:
            self._background.forget()
        if self._meter is not None:
            self._meter.reset(seed)
        self._age = 0
        self.imagination = self.subtask = None
        self.imagination_reason = None
        self.last_timing = {}

    def select_action(self, observation: Observation) -> Float[Tensor, "batch action_dim"]:
        """The next action of the current chunk; makes a new chunk when the current one is used up."""
        self.last_timing = {}
        if not self._queue:
            chunk = self.predict_action_chunk(observation)
            self._queue.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._queue.popleft()

    @torch.no_grad()
    def predict_action_chunk(
        self, observation: Observation, prefix: ChunkPrefix | None = None
    ) -> Float[Tensor, "batch chunk action_dim"]:
        """Looks, imagines if there is a reason to, and makes a chunk.

        Args:
            observation: What is seen now; images of other sizes are brought to those of the training.
            prefix: What is left of the chunk that is being carried out meanwhile.

        Raises:
            UnknownNameError: If a camera is missing that the head was not trained to do without.
            ConfigError: If the proprioception has other entries than in training.
            CheckpointError: If the observation is of an embodiment that there is no head for.
        """
        if observation.embodiment is not None:
            self.use_embodiment(observation.embodiment)
        self._check(observation)
        start = self._milliseconds()
        observation = observation.to(self._device)
        self.last_timing = {}
        scene = self._engine.observe(observation, camera=self._head.config.camera)
        self._take_finished()
        context = self._encode(scene, observation)
        reason = self.config.reason(self._active_subgoal(scene, context))
        if reason is not None and self._imagine(scene, reason):
            context = self._encode(scene, observation)
            self._active_subgoal(scene, context)
        chunk = self._head.sample(context, self._action_generator, prefix)
        if self._meter is not None and self.imagination is not None:
            self._meter.acted(scene, chunk[:, : self.config.n_action_steps])
        self._age += self.config.n_action_steps if prefix is None else max(1, prefix.delay)
        self.last_timing["chunk_ms"] = self._milliseconds() - start - self.last_timing.get("imagine_ms", 0.0)
        return chunk

    def continue_chunk(
        self, observation: Observation, rest: Float[Tensor, "batch steps action_dim"], delay: int
    ) -> Float[Tensor, "batch chunk action_dim"]:
        """Makes a chunk that goes on from the one that is being carried out.

        Args:
            observation: What is seen now.
            rest: Its actions from now on.
            delay: Control steps that pass until the new chunk is there.
        """
        size = self._head.config.chunk_size
        rest, delay = rest.to(self._device), min(delay, size - 1)
        prefix = ChunkPrefix.of(rest, delay=delay, chunk_size=size, horizon=size)
        return self.predict_action_chunk(observation, prefix)

    def close(self) -> None:
        """Ends the thread that imagines, if there is one."""
        if self._background is not None:
            self._background.close()

    def _imagine(self, scene: Context, reason: ImaginationReason) -> bool:
        """Imagines, or has it begun in the background; tells whether there is a new imagination."""
        texts = None if self.subtask is None else [self.subtask] * len(scene.codes)
        if self._background is not None:
            if not self._background.busy:
                self._background.start(scene, self._imagination_generator, texts)
                self._asked = scene, reason
            return False
        start = self._milliseconds()
        if self._source is None or texts is not None:
            imagination = self._engine.imagine(scene, texts=texts, generator=self._imagination_generator)
        else:
            imagination = self._source.imagine(scene, generator=self._imagination_generator)
        self._activate(imagination, scene, reason)
        self.last_timing["imagine_ms"] = self._milliseconds() - start
        return True

    def _take_finished(self) -> None:
        finished = self._background.take() if self._background is not None else None
        if finished is not None:
            self._activate(finished, *self._asked)

    def _activate(self, imagination: Imagination, scene: Context, reason: ImaginationReason) -> None:
        self.imagination, self.imagination_reason, self._age = imagination, reason, 0
        if self._meter is not None:
            self._meter.begin(scene, imagination, compare=self._compare)

    def _encode(self, scene: Context, observation: Observation) -> HeadContext:
        images, present = camera_images(observation, self._head.config)
        imagined = None if self.imagination is None else self.imagination.features[:, 0]
        hidden = [not self._arm.text, not self._arm.keyframe]
        without = torch.tensor([hidden], device=self._device) if any(hidden) else None
        return self._head.encode_context(
            scene.features, images, observation.proprio, imagined, present, without
        )

    def _active_subgoal(self, scene: Context, context: HeadContext) -> ActiveSubgoal | None:
        """How things stand with the imagination in this scene; the confidence in it is measured here."""
        if self.imagination is None:
            return None
        states = self._head.subtask_probabilities(context)
        confidence = None
        if self._meter is not None:
            confidence = self._meter.measure(scene, states, self._age)
        return ActiveSubgoal(age=self._age, confidence=confidence, subtask_probabilities=states)

    def _check(self, observation: Observation) -> None:
        config = self._head.config
        lookup("camera", config.camera, observation.images)
        if observation.proprio.shape[1] != config.proprio_dim:
            raise ConfigError(
                f"proprioception has {observation.proprio.shape[1]} entries; "
                f"the action head was trained with {config.proprio_dim}"
            )
        if self.imagination is not None and len(self.imagination.features) != observation.batch_size:
            raise ConfigError(
                f"the batch has {observation.batch_size} rows, but the active subgoal has "
                f"{len(self.imagination.features)}; call reset() before the number of rows changes"
            )

    def _milliseconds(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return 1e3 * time.perf_counter()
