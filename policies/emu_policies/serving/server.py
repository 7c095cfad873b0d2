"""The policy server: accepts one robot at a time, and only messages that it knows."""

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from emu_agent.episodes.rollout import Policy
from emu_agent.errors import ConfigError, EmuAgentError
from emu_policies.serving import messages
from emu_policies.serving.security import check_exposure, read_token, same_token, server_context
from emu_policies.serving.session import Session

READ_AHEAD = 2**16
"""Bytes that may wait unread in a connection, beyond the frame that is being read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where to listen, and what to accept."""

    host: str = "127.0.0.1"
    """Address; one that others reach needs a token and TLS."""
    port: int = 7447
    """TCP port; 0 takes any free one."""
    token_file: str | None = None
    """File with the shared secret; None takes EMU_AGENT_TOKEN, if it is set."""
    certificate: str | None = None
    """File with the server's certificate (PEM); switches TLS on."""
    key: str | None = None
    """File with the certificate's private key."""
    insecure: bool = False
    """Listen without token or TLS even where others can reach it."""
    control_hz: float | None = None
    """Actions per second; None takes what the policy was trained with."""
    largest_frame: int = messages.ROBOT_BYTES
    """Bytes that one message of a robot may have."""
    max_connections: int = 8
    """Connections at a time, those that are not yet welcome included."""
    hello_timeout_s: float = 5.0
    """Who has not said hello by then is sent away."""
    silence_timeout_s: float = 5.0
    """A robot that gives no sign of life for so long loses its place."""

    def __post_init__(self) -> None:
        for name in ("largest_frame", "max_connections", "hello_timeout_s", "silence_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0")
        if not isinstance(self.port, int) or not 0 <= self.port < 2**16:
            raise ConfigError(f"port={self.port} must be from 1 to {2**16 - 1}, or 0 for any that is free")


class PolicyServer:
    """Serves one policy over TCP. What is refused is counted in `counts`, and its connection closed."""

    port: int
    """Where it listens, once it does."""

    def __init__(self, policy: Policy, config: ServerConfig) -> None:
        """Prepare; nothing is opened yet.

        Raises:
            ConfigError: If the address may not be opened like that, or the control rate is not known.
        """
        self._policy, self._config = policy, config
        self._token = read_token(config.token_file)
        self._tls = server_context(config.certificate, config.key)
        check_exposure(config.host, token=self._token, tls=self._tls is not None, insecure=config.insecure)
        self._welcome = _welcome(policy, config)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._connections = 0
        self._robot_present = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self.counts: Counter[str] = Counter()

    @classmethod
    def create(cls, policy: Policy, **settings: Any) -> "PolicyServer":
        """Make a server from the fields of `ServerConfig`."""
        return cls(policy, ServerConfig(**settings))

    @property
    def protection(self) -> str:
        """In words, what keeps strangers away."""
        return f"{'token' if self._token else 'no token'}, {'TLS' if self._tls else 'no TLS'}"

    def serve(self, on_ready: Callable[["PolicyServer"], None] | None = None) -> None:
        """Serve until `stop` or an interrupt.

        Args:
            on_ready: Called when the server listens and `port` is known.

        Raises:
            ConfigError: If the address cannot be listened on.
        """
        try:
            asyncio.run(self._serve(on_ready))
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        """End `serve` from another thread."""
        self._stopping.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop may have ended by itself
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _serve(self, on_ready: Callable[["PolicyServer"], None] | None) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        config = self._config
        try:
            server = await asyncio.start_server(
                self._connected, config.host, config.port, limit=READ_AHEAD, ssl=self._tls
            )
        except OSError as error:
            raise ConfigError(f"cannot listen on {config.host}:{config.port}: {error.strerror}") from error
        self.port = server.sockets[0].getsockname()[1]
        if on_ready is not None:
            on_ready(self)
        try:
            while not self._stopping.is_set():
                await self._wake.wait()
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Converse, and count why a conversation ended."""
        self._connections += 1
        try:
            kind, reason = await self._converse(reader, writer)
            self.counts[kind] += 1
            if reason:
                _log.warning("connection refused, %s: %s", kind, reason)
                with suppress(OSError):
                    await self._send(writer, messages.Refused(reason=reason[:2000]))
        except asyncio.CancelledError:
            self.counts["server_stopped"] += 1
        finally:
            self._connections -= 1
            writer.close()
            with suppress(OSError):
                await asyncio.wait_for(writer.wait_closed(), self._config.hello_timeout_s)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, str]:
        """What a conversation is counted as, and what was wrong with it, if anything."""
        try:
            await asyncio.wait_for(self._greet(reader), self._config.hello_timeout_s)
            self._robot_present = True
            try:
                await self._talk(reader, writer)
            finally:
                self._robot_present = False
        except (asyncio.IncompleteReadError, ConnectionError):
            return "left", ""
        except TimeoutError:
            return "silent", "nothing was heard for too long"
        except messages.BadMessageError as error:
            return error.kind, str(error)
        except EmuAgentError as error:
            return "policy_error", str(error)
        except Exception:
            _log.exception("the policy failed")
            return "internal_error", "the policy failed; see the server's log"
        return "left", ""

    async def _greet(self, reader: asyncio.StreamReader) -> None:
        if self._connections > self._config.max_connections:
            raise messages.BadMessageError(
                "too_many", f"{self._config.max_connections} connections are open already"
            )
        hello = messages.decode_robot(await messages.read_frame(reader, messages.HELLO_BYTES))
        if not isinstance(hello, messages.Hello):
            raise messages.BadMessageError("order", "the first message must be a hello")
        if not same_token(hello.token, self._token):
            raise messages.BadMessageError("token", "the token is wrong")
        if hello.protocol != messages.PROTOCOL:
            raise messages.BadMessageError(
                "protocol", f"this server speaks protocol {messages.PROTOCOL}, not {hello.protocol}"
            )
        if self._robot_present:
            raise messages.BadMessageError("busy", "another robot is being served")

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(message: messages.Message) -> None:
            await self._send(writer, message)

        await send(self._welcome)
        self.counts["welcome"] += 1
        session = Session(
            self._policy,
            self._executor,
            reader,
            send,
            largest_frame=self._config.largest_frame,
            silence_s=self._config.silence_timeout_s,
        )
        await session.run()

    async def _send(self, writer: asyncio.StreamWriter, message: messages.Message) -> None:
        frame = messages.to_frame(message)
        if len(frame) > messages.SERVER_BYTES:
            raise messages.BadMessageError("chunk_size", f"a {type(message).__name__} of {len(frame)} bytes")
        writer.write(frame)
        await asyncio.wait_for(writer.drain(), self._config.silence_timeout_s)


def _welcome(policy: Policy, config: ServerConfig) -> messages.Welcome:
    fingerprint: Mapping[str, Any] | None = getattr(policy, "fingerprint", None)
    control_hz = config.control_hz or (fingerprint or {}).get("control_hz")
    if not control_hz or control_hz <= 0:
        raise ConfigError("the policy does not say how often it acts: set control_hz, such as control_hz=20")
    return messages.Welcome(
        protocol=messages.PROTOCOL,
        period_s=1.0 / control_hz,
        fingerprint=json.dumps(fingerprint),
        subtasks=getattr(policy, "known_subtasks", None),
    )
