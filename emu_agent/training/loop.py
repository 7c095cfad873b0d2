"""The training loop: the same for every stage, on a CPU or a GPU.

Nothing random survives an update: batch, dropout and noise of update n are drawn from (seed, n). So a run
that was killed and resumed ends with the weights of one that was not.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from emu_agent.errors import ConfigError, TrainingDivergedError
from emu_agent.training.log import TrainingLog
from emu_agent.training.muon import Muon, split_parameters
from emu_agent.training.stage import WHOLE, Stage, StepResult
from emu_agent.training.state import TrainingState
from emu_agent.training.workers import Workers
from emu_agent.world_model.arithmetic import matrix_type, multiplying

SHARE_SEED = 15_485_863
"""Keeps the noise of the shares of a batch apart."""


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how fast and how carefully to train."""

    updates: int
    """Optimiser updates in all."""
    lr: float = 1e-3
    """Highest learning rate, of Muon (kernels) and AdamW (the rest)."""
    final_lr: float = 0.02
    """Learning rate at the end, as a fraction of the highest."""
    warmup: int = 100
    """Updates over which the learning rate rises."""
    weight_decay: float = 0.05
    """Decay of matrices, as AdamW's."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averaging factors."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    average: float = 0.998
    """Decay of the moving average of the weights; the average is what is validated and saved."""
    log_every: int = 20
    """Updates between two rows of metrics."""
    validate_every: int = 500
    """Updates between validations; pictures and a checkpoint are written with each."""
    keep_every: int = 0
    """Updates between two checkpoints that stay in `checkpoints/<update>`; 0 keeps the last one only."""
    save_every: int = 200
    """Updates between two saved states."""
    accumulate: int = 1
    """Parts in which a batch passes through the model, so that it need not fit into memory at once."""
    seed: int = 0
    """Seed of everything."""
    device: str = "cpu"
    """Where to train."""
    dtype: str = "auto"
    """In what matrices are multiplied: `float32`, `bfloat16`, or `auto`, whichever is faster."""

    def __post_init__(self) -> None:
        for name in ("updates", "log_every", "validate_every", "save_every", "accumulate"):
            if (count := getattr(self, name)) < 1:
                raise ConfigError(f"{name}={count} must be at least 1")
        if self.keep_every < 0 or self.keep_every % self.validate_every:
            raise ConfigError(
                f"keep_every={self.keep_every} must be 0 or a multiple of "
                f"validate_every={self.validate_every}"
            )


def train(stage: Stage, config: LoopConfig, folder: Path, workers: Workers | None = None) -> dict[str, float]:
    """Train a stage in `folder`, going on from the state that is there, and return the last validation.

    Of several processes the first one validates and writes; to the others nothing is returned.

    Raises:
        CheckpointError: the state that is there is broken, or stands on other data or weights.
        TrainingDivergedError: the loss is no longer a finite number; the last good state and checkpoint are
            kept.
    """
    workers = workers or Workers(config.device)
    config = replace(config, dtype=matrix_type(config.dtype, config.device))
    torch.manual_seed(config.seed)
    state = _new_state(stage, replace(config, device=workers.device))
    state_file = folder / "state.safetensors"
    if state_file.exists():
        state.load(state_file)
    if not workers.first:
        while state.update < config.updates:
            _update(stage, state, config, workers)
            if _due(state, config, config.validate_every):
                workers.wait()
        return {}
    log = TrainingLog(folder, purge_after=state.update)
    figures: dict[str, float] = {}
    with log, tqdm(total=config.updates, initial=state.update, unit="update", desc=folder.name) as bar:
        while state.update < config.updates:
            metrics = _update(stage, state, config, workers)
            bar.update()
            if state.update % config.log_every == 0:
                bar.set_postfix(loss=f"{metrics['loss']:.4f}")
                log.write("train", state.update, metrics)
            if _due(state, config, config.validate_every):
                figures = _validate(stage, state, config, folder)
                log.write("validation", state.update, figures)
                workers.wait()
            if _due(state, config, config.save_every):
                state.save(state_file)
    return figures or _validate(stage, state, config, folder)


def _due(state: TrainingState, config: LoopConfig, every: int) -> bool:
    return state.update == config.updates or state.update % every == 0


def learning_rate(config: LoopConfig, update: int) -> float:
    """Linear rise over `warmup`, then a cosine down to `final_lr` of the highest."""
    if update < config.warmup:
        return config.lr * (update + 1) / config.warmup
    progress = (update - config.warmup) / max(1, config.updates - config.warmup)
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress)))


def _new_state(stage: Stage, config: LoopConfig) -> TrainingState:
    model = stage.build().to(config.device).train()
    kernels, matrices, vectors = split_parameters(model)
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    first, second = config.betas
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, betas=(first, second))]
    if kernels:
        optimizers.append(Muon(kernels, lr=config.lr, weight_decay=config.weight_decay))
    average = _averaged(model, config.average)
    return TrainingState(model, average, tuple(optimizers), sources=stage.sources())


def _averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of a model; weights that are not trained are shared with it, not copied."""
    average = AveragedModel(nn.Identity(), multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    frozen = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    average.module = copy.deepcopy(model, frozen)
    return average


def _update(stage: Stage, state: TrainingState, config: LoopConfig, workers: Workers) -> dict[str, float]:
    started = time.perf_counter()
    rate = learning_rate(config, state.update)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    result = _gradients(stage, state, config, workers)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
    if not (torch.isfinite(result.loss) and torch.isfinite(norm)):
        raise TrainingDivergedError(
            f"update {state.update}: loss {result.loss.item()}, gradient norm {norm.item()}; what was saved "
            "before is kept. The same settings come to the same end: train into another output with a lower "
            "lr or clip_norm"
        )
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    state.average.update_parameters(state.model)
    state.update += 1
    state.size += result.size
    state.seconds += time.perf_counter() - started
    speed = {f"{stage.unit}_per_second": state.size / state.seconds, "hours": state.seconds / 3600}
    return {"loss": result.loss.item(), **result.metrics, "gradient_norm": norm.item(), "lr": rate, **speed}


def _gradients(stage: Stage, state: TrainingState, config: LoopConfig, workers: Workers) -> StepResult:
    """Gradients of a whole batch, and its loss, whatever it is shared by."""
    shares = workers.shares(config.accumulate)
    whole = shares == [WHOLE]
    results = []
    for share in shares:
        torch.manual_seed(config.seed * 1_000_003 + state.update + SHARE_SEED * share.index)
        rng = np.random.default_rng([config.seed, state.update])
        with multiplying(config.dtype, config.device):
            results.append(stage.step(state.model, rng, share))
        loss = results[-1].loss
        (loss if whole else loss * results[-1].weight).backward()
    if whole:
        return results[0]
    device = results[0].loss.device
    weight = sum(result.weight for result in results)
    total = workers.sum_gradients(state.model, torch.tensor(float(weight), device=device))
    summed = torch.stack([result.loss.detach() * result.weight for result in results]).sum()
    size = sum(result.size for result in results) * workers.count
    return results[0]._replace(loss=workers.mean(summed, total), size=size)


def _validate(stage: Stage, state: TrainingState, config: LoopConfig, folder: Path) -> dict[str, float]:
    with _evaluating(state.average.module) as model, _fixed_seed(config.seed):
        figures = stage.validate(model)
        stage.show(model, folder / "samples", state.update)
    training = {
        "loop": asdict(config), "updates": state.update, "validation": figures,
        "seconds": round(state.seconds, 1),
        f"{stage.unit}_seen": state.size,
        f"{stage.unit}_per_second": round(state.size / max(state.seconds, 1e-9), 1),
    }  # fmt: skip
    stage.save(state.average.module, folder / "checkpoint", training)
    if config.keep_every and (state.update % config.keep_every == 0 or state.update == config.updates):
        stage.save(state.average.module, folder / "checkpoints" / str(state.update), training)
    return figures


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[nn.Module]:
    model.eval()
    try:
        with torch.inference_mode():
            yield model
    finally:
        model.train()


@contextmanager
def _fixed_seed(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
