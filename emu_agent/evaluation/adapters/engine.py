"""Our own imagination engine as a scored model: agent checkpoints, and folders of the published format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from emu_agent.evaluation.adapters.protocol import Abilities, Future, Start
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.observation import unfitted
from emu_agent.official.assembly import official_engine
from emu_agent.world_model.checkpoint import bundled_checkpoint, modules_digest, read_config
from emu_agent.world_model.fast import FastModel


@dataclass(frozen=True)
class _Seen:
    """The present as codes."""

    codes: Int64[Tensor, "batch rows cols"]
    instructions: tuple[str, ...]
    size: tuple[int, int]


class EngineAdapter:
    """An imagination engine that can be scored.

    Args:
        engine: What imagines.
        name: For reports.
        chunk: Actions that one simulated frame takes; None if it was trained for any number.
    """

    def __init__(self, engine: ImaginationEngine, name: str = "ours", *, chunk: int | None = None) -> None:
        self.engine = engine
        self.name = name
        dims = {len(bins.low) for bins in engine.action_bins.values()}
        self.abilities = Abilities(
            imagine=True,
            simulate=bool(dims),
            texts=True,
            chunk=chunk,
            action_dim=dims.pop() if len(dims) == 1 else None,
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: str | None = None, **config: Any) -> "EngineAdapter":
        """An agent checkpoint; without one, that inside the package. `config` is `ImaginationConfig`'s."""
        folder = Path(checkpoint) if checkpoint else bundled_checkpoint()
        engine = ImaginationEngine.from_pretrained(folder, ImaginationConfig(**config))
        meta = read_config(folder)
        data = meta.get("training", {}).get("world_model", {}).get("data", {})
        return cls(engine, chunk=data.get("chunk"))

    @classmethod
    def from_official(cls, weights: str, **settings: Any) -> "EngineAdapter":
        """A folder of the published format; `settings` are those of `official_engine`."""
        return cls(official_engine(weights, **settings), "official")

    def digest(self) -> str:
        """Of the weights of image tokenizer and world model."""
        model = self.engine.world_model
        network = model.network if isinstance(model, FastModel) else model
        return modules_digest(self.engine.image_tokenizer, network)

    @torch.no_grad()
    def encode(self, start: Start) -> _Seen:
        """The present as codes."""
        pictures = torch.from_numpy(np.ascontiguousarray(start.pictures))
        height, width = start.pictures.shape[1:3]
        return _Seen(self.engine.encode(pictures), tuple(start.instructions), (height, width))

    @torch.no_grad()
    def predict(
        self, context: _Seen, steps: int, actions: Float32[np.ndarray, "batch time action_dim"] | None = None
    ) -> Future:
        """Simulate chunk after chunk, each from the frame drawn before; or imagine steps."""
        return self._imagine(context, steps) if actions is None else self._simulate(context, steps, actions)

    def _simulate(self, context: _Seen, steps: int, actions: np.ndarray) -> Future:
        codes, pictures, trust = context.codes, [], []
        for chunk in np.split(actions, steps, axis=1):
            codes, log_prob = self.engine.simulate(codes, torch.from_numpy(np.ascontiguousarray(chunk)))
            pictures.append(self._draw(codes, context.size))
            trust.append(log_prob.float().cpu().numpy())
        return Future(pictures=np.stack(pictures, axis=1), log_prob=np.stack(trust, axis=1))

    def _imagine(self, context: _Seen, steps: int) -> Future:
        seen = self.engine.context(context.codes, context.instructions)
        made = self.engine.imagine(seen, steps=steps)
        drawn = [self._draw(codes, context.size) for codes in made.codes[:, 0].unbind(1)]
        return Future(
            pictures=np.stack(drawn, axis=1),
            texts=tuple(row[0] for row in made.text),
            log_prob=made.image_log_prob[:, 0].float().cpu().numpy(),
        )

    def _draw(
        self, codes: Int64[Tensor, "batch rows cols"], size: tuple[int, int]
    ) -> UInt8[np.ndarray, "batch height width 3"]:
        """Pictures in the size of those that were seen: tokenizers that resize do not keep it."""
        return unfitted(self.engine.image_tokenizer.decode(codes).cpu(), size, self.engine.fit).numpy()
