"""What tests of serving share: policies that remember, observations, and a client that says anything."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from emu_policies.serving.messages import HEADER, PROTOCOL, Hello, Message, Refused, decode_server, to_frame

from emu_agent.observation import Observation

TOKEN = "0123456789abcdef"


class Counting:
    """Answers with chunks that count up, and remembers what it was asked."""

    fingerprint = None

    def __init__(self, steps: int = 4, delay_s: float = 0.0) -> None:
        self.steps, self.delay_s = steps, delay_s
        self.seeds: list[int] = []
        self.seen: list[Observation] = []

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def select_action(self, observation: Observation) -> torch.Tensor:
        return self.predict_action_chunk(observation)[:, 0]

    def predict_action_chunk(self, observation: Observation) -> torch.Tensor:
        time.sleep(self.delay_s)
        self.seen.append(observation)
        first = 100.0 * len(self.seen)
        return first + torch.arange(float(self.steps)).reshape(1, -1, 1).repeat(1, 1, 2)


class GoingOn(Counting):
    """Its chunks go on from the one before; remembers from what."""

    def __init__(self, steps: int = 4, delay_s: float = 0.0) -> None:
        super().__init__(steps, delay_s)
        self.rests: list[tuple[list[float], int]] = []

    def continue_chunk(self, observation: Observation, rest: torch.Tensor, delay: int) -> torch.Tensor:
        self.rests.append((rest[0, :, 0].tolist(), delay))
        return self.predict_action_chunk(observation)


def seen(value: float = 0.5, size: int = 8) -> Observation:
    picture = torch.arange(size * size * 3, dtype=torch.int64).remainder(256).to(torch.uint8)
    images = {"front": picture.reshape(1, size, size, 3)}
    return Observation(images, torch.full((1, 2), value), ("lift the cube",))


class Stranger:
    """A socket to a server, for frames that no honest robot would send."""

    def __init__(self, port: int, timeout: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)

    def say(self, data: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def frame(self, payload: bytes) -> None:
        self.say(HEADER.pack(len(payload)) + payload)

    def message(self, message: Message) -> None:
        self.say(to_frame(message))

    def hello(self, token: str = "", protocol: int = PROTOCOL) -> Any:
        self.message(Hello(protocol=protocol, token=token))
        return self.read()

    def read(self) -> Any:
        """The next message; None when the server has closed the connection."""
        header = self._exactly(HEADER.size)
        data = header and self._exactly(HEADER.unpack(header)[0])
        return decode_server(data) if data else None

    def end(self) -> str:
        """Wait until the server closes; the reason it gave, if it arrived."""
        reason = ""
        while (message := self.read()) is not None:
            if isinstance(message, Refused):
                reason = message.reason
        self.close()
        return reason

    def close(self) -> None:
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionResetError:
                return b""
            if not piece:
                return b""
            data += piece
        return data


def drop_silently(stranger: Stranger) -> None:
    """End a connection without a goodbye that the other side would have to answer."""
    stranger.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stranger.close()


class JointRobot:
    """Goes where it is told, and remembers when it was told what."""

    def __init__(self) -> None:
        self.position = np.zeros(2)
        self.told: list[tuple[float, np.ndarray]] = []
        self._stop, self._enough = threading.Event(), lambda: False

    def observe(self) -> tuple[Observation, float]:
        observation = seen()
        proprio = torch.from_numpy(self.position.astype(np.float32))[None]
        return Observation(observation.images, proprio, observation.instruction), time.monotonic()

    def send(self, action: np.ndarray) -> None:
        self.position = action
        self.told.append((time.monotonic(), action))
        if self._enough():
            self._stop.set()

    def until(self, enough: Callable[[], bool]) -> threading.Event:
        """Is set after an action with which it is enough."""
        self._enough = enough
        return self._stop
