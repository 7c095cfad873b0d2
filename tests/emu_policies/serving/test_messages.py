import pickle
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
import torch
from emu_policies.serving.messages import (
    ActiveChunk,
    Array,
    BadMessageError,
    Beat,
    Chunk,
    Hello,
    Ready,
    Refused,
    Reset,
    Welcome,
    decode_robot,
    decode_server,
    encode,
    observation_of,
    observe,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emu_agent.errors import ServingError
from emu_agent.observation import Observation

COUNT = st.integers(0, 2**53)
SECONDS = st.floats(0, 1e12)
NUMBERS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)

EMPTY = {"dtype": "uint8", "shape": [0], "data": b""}


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@settings(deadline=None, max_examples=10)
@given(numbers=NUMBERS)
def test_arrays_come_back_bit_by_bit(numbers: np.ndarray) -> None:
    array = msgspec.msgpack.decode(encode(Array.of(numbers)), type=Array)
    back = array.numpy("float32", numbers.ndim)
    assert back.tobytes() == numbers.tobytes()
    assert back.shape == numbers.shape


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_what_robots_say_comes_back(data: st.DataObject) -> None:
    text = st.text(max_size=30)
    index, at = data.draw(COUNT), data.draw(SECONDS)
    for message in (
        Hello(protocol=index, token=data.draw(text)),
        Reset(seed=index, index=index),
        Beat(sent_at=at),
    ):
        assert decode_robot(encode(message)) == message
    pixels = data.draw(hnp.arrays(np.uint8, (1, 3, 2, 3)))
    proprio = data.draw(hnp.arrays(np.float32, (1, 5), elements=st.floats(-9, 9, width=32)))
    observation = Observation({"a": torch.from_numpy(pixels)}, torch.from_numpy(proprio), (data.draw(text),))
    active = data.draw(st.none() | st.builds(ActiveChunk, index=COUNT, carried_out=COUNT, delay=COUNT))
    message = observe(index, at, observation, active)
    back = decode_robot(encode(message))
    assert (back.index, back.captured_at, back.active) == (index, at, active)
    seen = observation_of(back)
    assert torch.equal(seen.images["a"], observation.images["a"])
    assert torch.equal(seen.proprio, observation.proprio)
    assert seen.instruction == observation.instruction


@settings(deadline=None, max_examples=10)
@given(index=COUNT, at=SECONDS, text=st.text(max_size=30), period=st.floats(0.001, 60))
def test_what_servers_say_comes_back(index: int, at: float, text: str, period: float) -> None:
    actions = Array.of(np.ones((2, 3), np.float32))
    for message in (
        Welcome(protocol=index, period_s=period, fingerprint=text, subtasks=(text,)),
        Ready(index=index),
        Chunk(index=index, captured_at=at, execute=2, actions=actions, compute_ms=at),
        Beat(sent_at=at),
        Refused(reason=text),
    ):
        assert decode_server(encode(message)) == message


def changed(message: object, **fields: object) -> bytes:
    plain = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    plain.update(fields)
    return msgspec.msgpack.encode({key: value for key, value in plain.items() if value is not ...})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"extra": 1}, "unknown field `extra`"),
        ({"index": ...}, "missing required field `index`"),
        ({"index": -1}, ">= 0"),
        ({"index": "1"}, "Expected `int`"),
        ({"index": True}, "Expected `int`"),
        ({"captured_at": float("nan")}, ">= 0"),
        ({"type": "execute"}, "Invalid value 'execute'"),
        ({"type": "chunk"}, "Invalid value 'chunk'"),
        ({"images": {f"c{i}": EMPTY for i in range(9)}}, "length <= 8"),
        ({"instruction": "x" * 4001}, "length <= 4000"),
        ({"proprio": {"dtype": "object", "shape": [1], "data": b""}}, "Invalid enum value 'object'"),
        ({"proprio": {"dtype": "float32", "shape": [-1], "data": b""}}, ">= 0"),
        ({"proprio": {"dtype": "float32", "shape": [1] * 5, "data": b""}}, "length <= 4"),
        ({"proprio": [1.0, 2.0]}, "Expected `object`"),
    ],
)
def test_what_is_not_to_the_letter_is_no_message(remote: ModuleType, fields: dict, words: str) -> None:
    data = changed(observe(1, 2.0, remote.seen()), **fields)
    with pytest.raises(BadMessageError, match=words) as caught:
        decode_robot(data)
    assert caught.value.kind == "schema"


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x81", b"\x93\x01", b"\xdf\xff\xff\xff\xff", 5000 * b"\x91"]
)
def test_what_is_no_messagepack_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessageError):
        decode_robot(data)


def test_a_pickle_is_not_carried_out(tmp_path: Path) -> None:
    path = tmp_path / "executed"
    for payload in (pickle.dumps(Trap(path)), changed(Beat(sent_at=0.0), sent_at=pickle.dumps(Trap(path)))):
        with pytest.raises(BadMessageError):
            decode_robot(payload)
    assert not path.exists()
    pickle.loads(pickle.dumps(Trap(path)))
    assert path.exists()  # the trap works


@pytest.mark.parametrize(
    "array",
    [
        Array(dtype="float32", shape=(2,), data=b"\0" * 7),
        Array(dtype="float32", shape=(2,), data=b"\0" * 12),
        Array(dtype="uint8", shape=(8,), data=b"\0" * 8),
        Array(dtype="float32", shape=(2, 1), data=b"\0" * 8),
        Array(dtype="float32", shape=(1,), data=np.float32(np.nan).tobytes()),
        Array(dtype="float32", shape=(65536, 65536, 65536, 65536), data=b"\0" * 8),
    ],
)
def test_arrays_that_contradict_themselves_are_refused(array: Array) -> None:
    with pytest.raises(BadMessageError) as caught:
        array.numpy("float32", 1)
    assert caught.value.kind == "array"


def test_pictures_of_other_kinds_are_refused(remote: ModuleType) -> None:
    for shape in ((4, 4, 4), (0, 4, 3), (16, 3)):
        picture = Array.of(np.zeros(shape, np.uint8))
        message = msgspec.structs.replace(observe(1, 2.0, remote.seen()), images={"front": picture})
        with pytest.raises(BadMessageError):
            observation_of(message)


def test_one_connection_serves_one_robot(remote: ModuleType) -> None:
    one = remote.seen()
    two = Observation(
        {"front": one.images["front"].repeat(2, 1, 1, 1)}, one.proprio.repeat(2, 1), one.instruction * 2
    )
    with pytest.raises(ServingError, match="one connection serves one robot"):
        observe(0, 0.0, two)
