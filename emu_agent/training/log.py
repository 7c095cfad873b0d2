"""Metrics of a training run: one line of JSON each for programs, TensorBoard for people."""

import json
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from emu_agent.run_folder import write_text


class TrainingLog:
    """Writes metrics.jsonl and TensorBoard events into a run folder.

    Args:
        folder: the run's folder.
        purge_after: rows of later updates are dropped: they belong to work that a kill has undone.
    """

    def __init__(self, folder: Path, purge_after: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        if path.exists():
            rows = path.read_text().splitlines()
            kept = [row for row in rows if row.endswith("}") and json.loads(row)["update"] <= purge_after]
            write_text(path, "".join(row + "\n" for row in kept))
        self._stream = path.open("a", encoding="utf-8", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_after + 1)

    def write(self, kind: str, update: int, metrics: dict[str, float]) -> None:
        """Add one row; `kind` is "train" or "validation"."""
        self._stream.write(json.dumps({"kind": kind, "update": update, **metrics}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(f"{kind}/{name}", value, update)

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._board.close()
