"""The robot's end of a connection, kept by a thread of its own: the control loop never waits for it."""

import asyncio
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from emu_agent.errors import ConfigError, ServingError
from emu_policies.serving import messages
from emu_policies.serving.security import check_exposure, client_context, read_token

HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
"""What the kernel says of a connection that the other side has ended, even while data wait to be read."""
GOODBYE_S = 0.5
"""For the last words of one side of a connection to be heard by the other."""


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """How to reach a policy server, and when to give it up."""

    address: str = "127.0.0.1:7447"
    """Host and port."""
    token_file: str | None = None
    """File with the shared secret; None takes EMU_AGENT_TOKEN, if it is set."""
    authority: str | None = None
    """File with the certificate (PEM) to trust; switches TLS on."""
    insecure: bool = False
    """Talk without token or TLS even across a network."""
    connect_timeout_s: float = 10.0
    """To be welcomed within."""
    heartbeat_s: float = 0.05
    """Between two signs of life."""
    heartbeat_timeout_s: float = 0.25
    """A server that has not answered for so long has gone away."""

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ConfigError(f"address must be host:port, such as 127.0.0.1:7447, got {self.address!r}")
        if not 0 < self.heartbeat_s < self.heartbeat_timeout_s:
            raise ConfigError(
                f"heartbeat_timeout_s={self.heartbeat_timeout_s} must exceed heartbeat_s={self.heartbeat_s}"
            )

    @property
    def host(self) -> str:
        """The address without its port."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port."""
        return int(self.address.rpartition(":")[2])


class Link:
    """A connection to a policy server; once lost, it stays lost."""

    def __init__(
        self,
        config: LinkConfig,
        on_message: Callable[[messages.ServerMessage], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Connect, and wait to be welcomed.

        Args:
            config: How to.
            on_message: Called with every answer, in the link's own thread.
            on_lost: Called in that thread when the connection has ended.

        Raises:
            ServingError: If there is no server, or it refuses.
            ConfigError: If token or certificate cannot be read, or the address needs them.
        """
        self._config, self._on_message, self._on_lost = config, on_message, on_lost
        self._hello = messages.Hello(protocol=messages.PROTOCOL, token=read_token(config.token_file))
        self._tls = client_context(config.authority)
        check_exposure(
            config.host, token=self._hello.token, tls=self._tls is not None, insecure=config.insecure
        )
        self._heard_at = time.monotonic()
        self._lost: str | None = None
        self._loop = asyncio.new_event_loop()
        self._writer: asyncio.StreamWriter | None = None
        self._ended = select.poll()
        welcome: Future[messages.Welcome] = Future()
        self._thread = threading.Thread(target=self._run, args=(welcome,), daemon=True, name="policy-link")
        self._thread.start()
        self.welcome = welcome.result()

    @property
    def ended(self) -> bool:
        """Whether the connection has ended and everything that came over it has been read."""
        return self._lost is not None

    def lost(self, now: float) -> str | None:
        """Why the server is not there any more; None while it is."""
        silence = now - self._heard_at
        if self._lost is None and self._ended.poll(0):
            return f"the server at {self._config.address} has gone away"
        if self._lost is None and silence > self._config.heartbeat_timeout_s:
            return f"nothing heard of the server for {silence:.3f} s"
        return self._lost

    def send(self, message: messages.Message) -> None:
        """Send soon; never waits, and does nothing once the link is lost."""
        frame = messages.to_frame(message)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._write, frame)

    def close(self) -> None:
        """End the connection."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self, welcome: "Future[messages.Welcome]") -> None:
        self._task = self._loop.create_task(self._main(welcome))
        try:
            with suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._loop.close()

    async def _main(self, welcome: "Future[messages.Welcome]") -> None:
        try:
            reader = await asyncio.wait_for(self._greet(welcome), self._config.connect_timeout_s)
            await self._converse(reader)
        except (OSError, EOFError, UnicodeError, ServingError) as error:  # Unicode: no name of a host
            self._lost = _reason(error, self._config.address)
            if not welcome.done():
                welcome.set_exception(ServingError(self._lost))
        finally:
            self._lost = self._lost or "the connection was closed"
            if not welcome.done():
                welcome.set_exception(ServingError(self._lost))
            self._on_lost()
            if self._writer is not None:
                self._writer.close()
                with suppress(OSError):
                    await asyncio.wait_for(self._writer.wait_closed(), GOODBYE_S)

    async def _greet(self, welcome: "Future[messages.Welcome]") -> asyncio.StreamReader:
        config = self._config
        reader, self._writer = await asyncio.open_connection(config.host, config.port, ssl=self._tls)
        self._writer.write(messages.to_frame(self._hello))
        answer = messages.decode_server(await messages.read_frame(reader, messages.SERVER_BYTES))
        if isinstance(answer, messages.Refused):
            raise ServingError(f"the server refuses: {answer.reason}")
        if not isinstance(answer, messages.Welcome) or answer.protocol != messages.PROTOCOL:
            raise messages.BadMessageError("order", f"the server does not speak protocol {messages.PROTOCOL}")
        self._heard_at = time.monotonic()
        # Asked by the control loop itself: it must not depend on when this thread gets its turn.
        self._ended.register(self._writer.get_extra_info("socket").fileno(), HUNG_UP)
        welcome.set_result(answer)
        return reader

    async def _converse(self, reader: asyncio.StreamReader) -> None:
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                message = messages.decode_server(await messages.read_frame(reader, messages.SERVER_BYTES))
                self._heard_at = time.monotonic()
                if isinstance(message, messages.Refused):
                    raise ServingError(f"the server refuses: {message.reason}")
                if not isinstance(message, messages.Beat):
                    self._on_message(message)
        finally:
            beating.cancel()

    async def _beat(self) -> None:
        while True:
            self._write(messages.to_frame(messages.Beat(sent_at=time.monotonic())))
            await asyncio.sleep(self._config.heartbeat_s)

    def _write(self, frame: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame)


def _reason(error: Exception, address: str) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer from {address} in time"
    if isinstance(error, EOFError):
        return f"the server at {address} has gone away"
    if isinstance(error, ServingError):
        return str(error)
    return f"cannot reach the policy server at {address}: {error}"
