"""One robot's conversation with the policy."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from emu_agent.episodes.rollout import Policy
from emu_agent.errors import ServingError
from emu_agent.observation import Observation
from emu_policies.serving import messages


@dataclass(frozen=True)
class Rest:
    """What a robot carries out while its next chunk is made."""

    actions: Float32[np.ndarray, "steps action_dim"]
    """From the time of the observation on."""
    delay: int
    """Periods until the next chunk is there."""


class Session:
    """Reads what a robot says while the policy thinks; of several observations, the newest counts."""

    def __init__(
        self,
        policy: Policy,
        executor: Executor,
        reader: asyncio.StreamReader,
        send: Callable[[messages.Message], Any],
        *,
        largest_frame: int,
        silence_s: float,
    ) -> None:
        """Begin after the welcome.

        Args:
            policy: What acts; `executor` runs one call of it at a time.
            executor: Keeps the policy from delaying signs of life.
            reader: Where the robot's frames come from.
            send: An async function that sends a message to the robot.
            largest_frame: In bytes.
            silence_s: A robot that says nothing for so long is given up.
        """
        self._policy, self._executor = policy, executor
        self._reader, self._send = reader, send
        self._largest_frame, self._silence_s = largest_frame, silence_s
        self._reset: messages.Reset | None = None
        self._seen: tuple[messages.Observe, Observation] | None = None
        self._was_reset = False
        self._sent: tuple[int, Float32[np.ndarray, "steps action_dim"]] | None = None
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Converse until the robot leaves; whatever else ends it is raised."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._answer())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            frame = await asyncio.wait_for(
                messages.read_frame(self._reader, self._largest_frame), self._silence_s
            )
            match messages.decode_robot(frame):
                case messages.Beat() as beat:
                    await self._send(beat)
                case messages.Reset() as reset:
                    self._reset, self._seen, self._was_reset = reset, None, True
                    self._news.set()
                case messages.Observe() as message if self._was_reset:
                    self._seen = message, messages.observation_of(message)
                    self._news.set()
                case message:
                    raise messages.BadMessageError(
                        "order", f"a {type(message).__name__.lower()} is out of place here"
                    )

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            if (reset := self._reset) is not None:
                self._reset = self._sent = None
                await loop.run_in_executor(self._executor, self._policy.reset, reset.seed)
                await self._send(messages.Ready(index=reset.index))
            elif (seen := self._seen) is not None:
                self._seen = None
                started = time.perf_counter()
                rest = self._rest(seen[0].active)
                asked = self._policy, seen[1], rest, seen[0].subtask
                actions = await loop.run_in_executor(self._executor, predict, *asked)
                self._sent = seen[0].index, actions
                await self._send(self._chunk(seen[0], actions, 1000 * (time.perf_counter() - started)))
            if self._reset is not None or self._seen is not None:
                self._news.set()

    def _rest(self, active: messages.ActiveChunk | None) -> Rest | None:
        """What the robot has left of the chunk that was sent last, if that is what it carries out."""
        if active is None or self._sent is None or self._sent[0] != active.index:
            return None
        left = self._sent[1][active.carried_out :]
        return Rest(left, active.delay) if len(left) else None

    def _chunk(
        self, message: messages.Observe, actions: Float32[np.ndarray, "steps action_dim"], compute_ms: float
    ) -> messages.Chunk:
        planned = getattr(getattr(self._policy, "config", None), "n_action_steps", len(actions))
        return messages.Chunk(
            index=message.index,
            captured_at=message.captured_at,
            execute=min(planned, len(actions)),
            actions=messages.Array.of(actions),
            compute_ms=compute_ms,
        )


@torch.no_grad()
def predict(
    policy: Policy, observation: Observation, rest: Rest | None = None, subtask: str = ""
) -> Float32[np.ndarray, "steps action_dim"]:
    """The policy's chunk for one robot, going on from a rest if it can; without chunks, its one action.

    A policy goes on by `continue_chunk(observation, rest, delay)`: a chunk that begins with what will have
    been carried out before it is there. What a person has told to do next it takes by `use_subtask`.

    Raises:
        ServingError: An action is not finite.
    """
    if getattr(policy, "known_subtasks", None) is not None:
        policy.use_subtask(subtask or None)  # pyright: ignore[reportAttributeAccessIssue]
    make_chunk, go_on = (getattr(policy, name, None) for name in ("predict_action_chunk", "continue_chunk"))
    if rest is not None and go_on:
        chunk = go_on(observation, torch.from_numpy(rest.actions)[None], rest.delay)[0]
    else:
        chunk = make_chunk(observation)[0] if make_chunk else policy.select_action(observation)
    actions = chunk.detach().to("cpu", torch.float32).numpy()
    if not np.isfinite(actions).all():
        raise ServingError("the policy's actions must be finite numbers, and are not; they were not sent")
    return actions
