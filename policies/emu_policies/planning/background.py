"""Imagining in a thread of its own, so that chunks never wait for it."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import Context, Imagination


class BackgroundImagination:
    """At most one imagination under way; the latest finished one is taken when it is there.

    On a GPU it has a stream of its own, or its kernels would queue before those of the next chunk.
    """

    def __init__(self, engine: ImaginationEngine, device: torch.device) -> None:
        """Starts no thread before the first imagination."""
        self._engine = engine
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="imagination")
        self._running: Future[Imagination] | None = None

    @property
    def busy(self) -> bool:
        """Whether an imagination is under way, or finished and not yet taken."""
        return self._running is not None

    def start(self, scene: Context, generator: torch.Generator, texts: Sequence[str] | None = None) -> None:
        """Begin to imagine what follows on a scene, or the keyframes of these subtasks."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        self._running = self._executor.submit(self._imagine, scene, generator, texts)

    def take(self) -> Imagination | None:
        """The imagination that was finished since the last call, if any; its errors are raised here."""
        if self._running is None or not self._running.done():
            return None
        finished, self._running = self._running, None
        return finished.result()

    def forget(self) -> None:
        """What is under way is of no interest any more."""
        if self._running is not None:
            self._running.cancel()
        self._running = None

    def close(self) -> None:
        """Let the thread end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _imagine(
        self, scene: Context, generator: torch.Generator, texts: Sequence[str] | None
    ) -> Imagination:
        # A thread has an inference mode of its own; the scene was made under that of the control loop.
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            imagined = self._engine.imagine(scene, steps=1, candidates=1, texts=texts, generator=generator)
            if self._stream is not None:
                self._stream.synchronize()
            return imagined
