"""Frames: four bytes of length, then one message. No more is read than has been allowed beforehand."""

import asyncio
import struct

from emu_policies.serving.messages import BadMessageError, Message, encode

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
