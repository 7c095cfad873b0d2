"""What robot and policy server say to each other: the only things that either of them understands.

A message is a MessagePack map with a field `type`. Every field of a type must be there, of its declared kind,
and no other; what does not fit is refused before anything is done with it. Arrays travel as raw bytes with
declared type and shape. Nothing in a message names code. On the wire a frame is four bytes of
length, then one message; no more is read than has been allowed beforehand.
"""

import asyncio
import math
import struct
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch

from emu_agent.errors import ServingError
from emu_agent.observation import Observation

PROTOCOL = 4
"""Both sides must speak the same."""

type Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
type Size = Annotated[int, msgspec.Meta(ge=0, le=2**16)]
type Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
type Text = Annotated[str, msgspec.Meta(max_length=4000)]
type Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e12)]

DTYPES = {"uint8": np.dtype("uint8"), "float32": np.dtype("<f4")}
"""Types that an array may have on the wire."""


class BadMessageError(ServingError):
    """A frame that is no message; `kind` is what is counted."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all messages."""


class Array(Message, frozen=True):
    """Numbers, row by row, least significant byte first."""

    dtype: Literal["uint8", "float32"]
    """Type of one number."""
    shape: Annotated[tuple[Size, ...], msgspec.Meta(min_length=1, max_length=4)]
    """Length of every axis."""
    data: bytes
    """The numbers."""

    def numpy(self, dtype: str, ndim: int) -> np.ndarray:
        """The numbers, read-only.

        Raises:
            BadMessageError: If type, axes or number of bytes are others, or a number is not finite.
        """
        if self.dtype != dtype or len(self.shape) != ndim:
            raise BadMessageError("array", f"an array of {ndim} axes of {dtype} is needed here")
        if math.prod(self.shape) * DTYPES[dtype].itemsize != len(self.data):
            raise BadMessageError("array", f"an array of shape {self.shape} has {len(self.data)} bytes")
        numbers = np.frombuffer(self.data, DTYPES[dtype]).reshape(self.shape)
        if dtype == "float32" and not np.isfinite(numbers).all():
            raise BadMessageError("array", "an array holds what is no finite number")
        return numbers

    @classmethod
    def of(cls, numbers: np.ndarray) -> "Array":
        """Wrap an array of one of the wire's types."""
        assert numbers.dtype in DTYPES.values(), numbers.dtype
        kind: Literal["uint8", "float32"] = "uint8" if numbers.dtype == np.uint8 else "float32"
        data = np.ascontiguousarray(numbers, DTYPES[kind]).tobytes()
        return cls(dtype=kind, shape=numbers.shape, data=data)


class Hello(Message, frozen=True, tag="hello"):
    """The robot's first message."""

    protocol: Count
    """The robot's `PROTOCOL`."""
    token: Annotated[str, msgspec.Meta(max_length=512)]
    """The shared secret; empty where the server asks for none."""


class Reset(Message, frozen=True, tag="reset"):
    """An episode begins."""

    seed: Count
    """Of all randomness in the policy."""
    index: Count
    """Observations sent before; chunks made from them are of no interest any more."""


class ActiveChunk(Message, frozen=True):
    """The chunk that the robot carries out while the next one is made."""

    index: Count
    """That of its observation."""
    carried_out: Count
    """Which of its actions is due at the time of the new observation."""
    delay: Count
    """Periods that will pass until the new chunk is there."""


class Observe(Message, frozen=True, tag="observe"):
    """What the robot sees; asks for a chunk."""

    index: Count
    """Observations sent before."""
    captured_at: Seconds
    """When it was seen, on the robot's clock."""
    images: Annotated[dict[Name, Array], msgspec.Meta(max_length=8)]
    """Pictures by camera: bytes (height, width, 3)."""
    proprio: Array
    """The body's readings."""
    instruction: Text
    """The task in words."""
    subtask: Annotated[str, msgspec.Meta(max_length=200)]
    """What a person has told to do next; empty where the model says it."""
    active: ActiveChunk | None
    """What the new chunk goes on from; null where the robot waits for it."""


class Beat(Message, frozen=True, tag="beat"):
    """A sign of life; the server sends it back."""

    sent_at: Seconds
    """On the robot's clock."""


class Welcome(Message, frozen=True, tag="welcome"):
    """The robot may go on."""

    protocol: Count
    """The server's `PROTOCOL`."""
    period_s: Annotated[float, msgspec.Meta(gt=0.0, le=60.0)]
    """Seconds between two actions of a chunk."""
    fingerprint: Annotated[str, msgspec.Meta(max_length=20_000)]
    """Environment that the policy was made for, as JSON; "null" if it does not say."""
    subtasks: Annotated[tuple[Text, ...], msgspec.Meta(max_length=900)] | None
    """Those that the policy was trained with, empty if it does not say; null where it takes none."""


class Ready(Message, frozen=True, tag="ready"):
    """The policy has been reset."""

    index: Count
    """That of the `Reset`."""


class Chunk(Message, frozen=True, tag="chunk"):
    """Actions, one per period from the time of the observation on."""

    index: Count
    """The observation's."""
    captured_at: Seconds
    """The observation's; times never come from the server's clock."""
    execute: Count
    """How many actions the policy itself would carry out before it makes the next chunk."""
    actions: Array
    """Numbers (steps, action_dim)."""
    compute_ms: Seconds
    """How long the policy took."""


class Refused(Message, frozen=True, tag="refused"):
    """The server closes the connection."""

    reason: Annotated[str, msgspec.Meta(max_length=2000)]
    """Why."""


type RobotMessage = Hello | Reset | Observe | Beat
type ServerMessage = Welcome | Ready | Chunk | Beat | Refused

_encoder = msgspec.msgpack.Encoder()
_robot: msgspec.msgpack.Decoder[RobotMessage] = msgspec.msgpack.Decoder(Hello | Reset | Observe | Beat)
_server: msgspec.msgpack.Decoder[ServerMessage] = msgspec.msgpack.Decoder(
    Welcome | Ready | Chunk | Beat | Refused
)


def encode(message: Message) -> bytes:
    """A message as bytes."""
    return _encoder.encode(message)


def decode_robot(data: bytes) -> RobotMessage:
    """Read what a robot says.

    Raises:
        BadMessageError: If it is no such message.
    """
    return _decode(_robot, data)


def decode_server(data: bytes) -> ServerMessage:
    """Read what a server says.

    Raises:
        BadMessageError: If it is no such message.
    """
    return _decode(_server, data)


def observe(
    index: int,
    captured_at: float,
    observation: Observation,
    active: ActiveChunk | None = None,
    subtask: str | None = None,
) -> Observe:
    """An observation of one robot as a message."""
    if observation.batch_size != 1:
        raise ServingError(f"one connection serves one robot; the batch has {observation.batch_size}")
    return Observe(
        index=index,
        captured_at=captured_at,
        images={camera: Array.of(image[0].cpu().numpy()) for camera, image in observation.images.items()},
        proprio=Array.of(observation.proprio[0].cpu().numpy()),
        instruction=observation.instruction[0],
        subtask=subtask or "",
        active=active,
    )


def observation_of(message: Observe) -> Observation:
    """The observation in a message.

    Raises:
        BadMessageError: If a picture or the body's readings are not what they must be.
    """
    images: Mapping[str, np.ndarray] = {
        camera: array.numpy("uint8", 3) for camera, array in message.images.items()
    }
    if any(image.shape[2] != 3 or image.size == 0 for image in images.values()):
        raise BadMessageError("array", "a picture needs pixels of three bytes")
    proprio = torch.from_numpy(message.proprio.numpy("float32", 1).copy())[None]
    pictures = {camera: torch.from_numpy(image.copy())[None] for camera, image in images.items()}
    return Observation(pictures, proprio, (message.instruction,))


def _decode[Kind](decoder: msgspec.msgpack.Decoder[Kind], data: bytes) -> Kind:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise BadMessageError("schema", f"not a message: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessageError("malformed", f"not MessagePack: {error}") from None


HEADER = struct.Struct(">I")
HELLO_BYTES = 4096
"""No first frame is longer; a stranger cannot make the server hold more."""
ROBOT_BYTES = 16 * 2**20
"""Default cap of a robot's frames: two pictures of 1920 x 1080 and some."""
SERVER_BYTES = 4 * 2**20
"""Cap of a server's frames."""


def to_frame(message: Message) -> bytes:
    """A message with its length in front."""
    data = encode(message)
    return HEADER.pack(len(data)) + data


async def read_frame(reader: asyncio.StreamReader, limit: int) -> bytes:
    """Read one frame.

    Raises:
        BadMessageError: If it is longer than `limit`, or empty; none of it has been read then.
        asyncio.IncompleteReadError: If the connection ends.
    """
    (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
    if not 0 < length <= limit:
        raise BadMessageError("oversize", f"a frame of {length} bytes; at most {limit} are allowed here")
    return await reader.readexactly(length)
