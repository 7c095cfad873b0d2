"""The policy of a server, used like one that runs here."""

import json
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from emu_agent.errors import ConfigError, ServingError
from emu_agent.observation import Observation
from emu_policies.planning.typed_subtask import check_subtask
from emu_policies.serving import messages
from emu_policies.serving.link import GOODBYE_S, Link, LinkConfig
from emu_policies.serving.schedule import Schedule, TimedChunk

REMEMBERED_WAITS = 10
"""Answers whose delay tells how long the next one may take."""


@dataclass(frozen=True, kw_only=True)
class RemotePolicyConfig(LinkConfig):
    """How to act on what a server answers."""

    realtime: bool = False
    """Never wait: act on what is due now, and hold where nothing is. False waits for every chunk, which is
    right for a simulation that stands still meanwhile."""
    hold: tuple[float, ...] | Literal["position"] | None = None
    """The action that stands still, needed in real time: "position" where actions are positions (it repeats
    the last one; before the first, the body's readings), else the numbers."""
    refill_s: float | None = None
    """Ask for a new chunk when less than this is left of the present one; None when as much of it has been
    carried out as the policy itself would, or sooner where answers take longer."""
    answer_timeout_s: float = 60.0
    """How long the policy may take."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.realtime and self.hold is None:
            raise ConfigError(
                "a robot in real time must know how to stand still: set hold='position' where actions are "
                "positions, or hold to the action that does not move, such as [0, 0, 0, 0, 0, 0, 0]"
            )


class RemotePolicy:
    """Asks a policy server for chunks, and hands out their actions one by one.

    In real time an action is due at a moment of this machine's monotonic clock: the chunk's k-th action k
    periods after its observation was made. Chunks that come too late are dropped. When the server has gone
    away, nothing of it is carried out any more: from the next call on the robot is told to hold.
    """

    subtask: str | None = None
    """What a person has told to do next; None where the server's model says it."""
    last_timing: dict[str, float]
    """Milliseconds of what happened in the latest call: `chunk_ms`."""

    def __init__(self, config: RemotePolicyConfig) -> None:
        """Connect to the server.

        Raises:
            ServingError: If there is none, or it refuses.
        """
        self.config = config
        self.counts: Counter[str] = Counter()
        self.last_timing = {}
        self._changed = threading.Condition()
        self._schedule = Schedule()
        self._asked: tuple[int, float, float] | None = None
        self._answer: TimedChunk | None = None
        self._ready = -1
        self._index = 0
        self._queue: list[np.ndarray] = []
        self._last_action: Tensor | None = None
        self._observed_at: float | None = None
        self._execute = 1
        self._waits: deque[float] = deque(maxlen=REMEMBERED_WAITS)
        self._link = Link(config, self._received, self._wake)

    @classmethod
    def connect(cls, **settings: Any) -> "RemotePolicy":
        """Connect with the fields of `RemotePolicyConfig`."""
        if isinstance(settings.get("hold"), list):
            settings["hold"] = tuple(map(float, settings["hold"]))
        return cls(RemotePolicyConfig(**settings))

    @property
    def fingerprint(self) -> Mapping[str, Any] | None:
        """Of the environment that the policy was made for."""
        return json.loads(self._link.welcome.fingerprint)

    @property
    def period_s(self) -> float:
        """Seconds between two actions."""
        return self._link.welcome.period_s

    @property
    def lost(self) -> str | None:
        """Why the server is not there any more; None while it is."""
        return self._link.lost(time.monotonic())

    @property
    def observed_at(self) -> float | None:
        """When the observation behind the latest action was made; None if the robot was told to hold."""
        return self._observed_at

    def reset(self, seed: int) -> None:
        """Start an episode; connects again if the server had gone away.

        Raises:
            ServingError: If the server does not answer.
        """
        if self.lost is not None:
            self._link.close()
            self._link = Link(self.config, self._received, self._wake)
        with self._changed:
            self._schedule.clear()
            self._queue, self._asked, self._answer = [], None, None
            self._last_action, self._observed_at, self._ready = None, None, -1
            self._index += 1
            self._link.send(messages.Reset(seed=seed, index=self._index))
            self._wait(lambda: self._ready == self._index)

    def use_subtask(self, text: str | None) -> None:
        """Have the next chunks do what a person says, from any thread; None lets the model choose again.

        Raises:
            ConfigError: The server's policy takes no subtasks, or the text is too long.
        """
        if text is not None:
            check_subtask(text, self._link.welcome.subtasks)
        self.subtask = text

    def predict_action_chunk(self, observation: Observation) -> Float[Tensor, "batch chunk action_dim"]:
        """Ask for a chunk, and wait for it.

        Raises:
            ServingError: If the server has gone away, refuses or takes too long.
        """
        started = time.monotonic()
        with self._changed:
            self._ask(observation, started, started)
            self._wait(lambda: self._answer is not None)
            chunk, self._answer = self._answer, None
            assert chunk is not None
        self.last_timing = {"chunk_ms": 1000 * (time.monotonic() - started)}
        return torch.from_numpy(chunk.actions.copy())[None]

    def select_action(
        self, observation: Observation, captured_at: float | None = None
    ) -> Float[Tensor, "batch action_dim"]:
        """The action for now.

        Args:
            observation: What is seen; sent if a chunk is wanted.
            captured_at: When it was seen, on this machine's monotonic clock; None is now.

        Raises:
            ServingError: If the server has gone away, unless in real time, where the robot holds.
        """
        self.last_timing = {}
        if self.config.realtime:
            now = time.monotonic()
            return self._act_now(observation, now if captured_at is None else captured_at, now)
        if not self._queue:
            self._queue = list(self.predict_action_chunk(observation)[0, : self._execute].numpy())
        return torch.from_numpy(self._queue.pop(0))[None]

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    def _act_now(self, observation: Observation, captured_at: float, now: float) -> Tensor:
        with self._changed:
            lost = self._link.lost(now)
            if lost is not None:
                self._schedule.clear()
            elif self._wants_chunk(now):
                self._ask(observation, captured_at, now)
            due = self._schedule.due(now)
            chunk = self._schedule.chunk
            self._observed_at = chunk.captured_at if due is not None and chunk is not None else None
        if due is None:
            self.counts["hold_lost" if lost else "hold_no_action"] += 1
            self._last_action = self._standing_still(observation)
        else:
            self._last_action = torch.from_numpy(due.copy())[None]
        return self._last_action

    def _standing_still(self, observation: Observation) -> Tensor:
        hold = self.config.hold
        if isinstance(hold, tuple):
            return torch.tensor([hold])
        return observation.proprio.clone() if self._last_action is None else self._last_action

    def _wants_chunk(self, now: float) -> bool:
        if self._asked is not None and now - self._asked[2] < self.config.answer_timeout_s:
            return False
        chunk, refill_s = self._schedule.chunk, self.config.refill_s
        if chunk is not None and refill_s is None:
            refill_s = max(chunk.spare_s, self._wait_s + self.period_s)
        return chunk is None or self._schedule.left_s(now) <= (refill_s or 0.0)

    def _ask(self, observation: Observation, captured_at: float, now: float) -> None:
        self._index += 1
        self._asked, self._answer = (self._index, captured_at, now), None
        active, subtask = self._active_chunk(captured_at), self.subtask
        self._link.send(messages.observe(self._index, captured_at, observation, active, subtask))

    @property
    def _wait_s(self) -> float:
        """How long an answer takes, mostly."""
        return median(self._waits) if self._waits else 0.0

    def _active_chunk(self, at: float) -> messages.ActiveChunk | None:
        """What is being carried out meanwhile, so that the new chunk can go on from it."""
        chunk = self._schedule.chunk if self.config.realtime else None
        number = None if chunk is None else chunk.number(at)
        if chunk is None or number is None or not self._waits:
            return None
        delay = math.ceil(self._wait_s / self.period_s)
        if number + delay >= len(chunk.actions):  # nothing of it is left when the new chunk comes
            return None
        return messages.ActiveChunk(index=chunk.index, carried_out=number, delay=delay)

    def _wait(self, arrived: Any) -> None:
        """Wait until something has come, or the server is known to have gone."""
        deadline = time.monotonic() + self.config.answer_timeout_s
        while not arrived():
            now = time.monotonic()
            if (lost := self._link.lost(now)) is not None:
                # It may have said why before it hung up, and that be still unread.
                if self._changed.wait_for(lambda: self._link.ended or arrived(), GOODBYE_S) and arrived():
                    return
                raise ServingError(self._link.lost(time.monotonic()) or lost)
            if now >= deadline:
                raise ServingError(
                    f"{self.config.address} has not answered in {self.config.answer_timeout_s} s"
                )
            self._changed.wait(self.config.heartbeat_timeout_s)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _received(self, message: messages.ServerMessage) -> None:
        """Called in the link's thread; what it raises ends the link."""
        with self._changed:
            match message:
                case messages.Ready():
                    self._ready = message.index
                case messages.Chunk():
                    self._take(message)
                case _:
                    raise messages.BadMessageError(
                        "order", f"a {type(message).__name__} is out of place here"
                    )
            self._changed.notify_all()

    def _take(self, message: messages.Chunk) -> None:
        actions = message.actions.numpy("float32", 2)
        if actions.size == 0 or not 1 <= message.execute <= len(actions):
            raise messages.BadMessageError("array", "a chunk needs actions")
        if self._asked is None or message.index != self._asked[0]:
            self.counts["chunk_stale"] += 1
            return
        index, captured_at, _ = self._asked  # times are ours, whatever the server says
        now = time.monotonic()
        self._waits.append(now - captured_at)
        self._asked, self._execute = None, message.execute
        chunk = TimedChunk(
            index=index,
            captured_at=captured_at,
            period_s=self.period_s,
            actions=actions,
            execute=message.execute,
        )
        fresh = not self.config.realtime or self._schedule.offer(chunk, now)
        self._answer = chunk
        self.counts["chunk" if fresh else "chunk_stale"] += 1
