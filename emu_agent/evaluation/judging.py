"""Applies every metric to the answers to a case: one number per sample and step."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from emu_agent.evaluation.cases import Case
from emu_agent.evaluation.controls import Answer
from emu_agent.evaluation.headline import measure_headline, region_errors
from emu_agent.evaluation.metrics.actions import action_direction, action_following, inverse_dynamics_error
from emu_agent.evaluation.metrics.language import boundaries, boundary_f1, step_order
from emu_agent.evaluation.metrics.lite0 import Lite0
from emu_agent.evaluation.metrics.motion import Motion, motion_scores
from emu_agent.evaluation.metrics.perceptual import Sight, crowd, lite0_distance, look
from emu_agent.evaluation.metrics.reader import Reader
from emu_agent.evaluation.metrics.temporal import temporal_psnr
from emu_agent.evaluation.pictures import compare_pictures, psnr_from_mse

type Columns = dict[str, Float[np.ndarray, "samples steps"]]

CROWDS = ("lite0_crowd", "region_lite0_crowd")
"""Vectors that metrics over sets of pictures read."""
BOUNDARY_TOLERANCE = 1
"""Looks by which a step may be seen to change too early or too late: half a chunk."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Trained parts of metrics; None where a dataset or an installation does not allow them."""

    network: Lite0 | None = None
    """Looks at pictures."""
    reader: Reader | None = None
    """Reads actions and states from pictures."""
    motion: Motion | None = None
    """Knows how things move."""


class Judge:
    """Judges the answers to one case.

    Args:
        case: What was asked, and what happened.
        tools: Trained parts of metrics.
    """

    def __init__(self, case: Case, tools: Tools) -> None:
        self._case, self._tools = case, tools
        self._shape = case.truth.shape[:2]

    def judge(self, answer: Answer) -> tuple[Columns, dict[str, np.ndarray]]:
        """All metrics of an answer, and the vectors that metrics over sets need."""
        columns = {
            **measure_headline(self._case, answer),
            **self._pictures(answer),
            **self._sequence(answer),
            **self._language(answer),
        }
        if self._tools.reader is not None and self._case.actions is not None:
            columns |= self._actions(answer, self._tools.reader)
        if self._tools.network is None:
            return columns, {}
        seen = look(self._tools.network, _flat(answer.pictures))
        return columns | self._perceptual(seen), self._crowds(seen)

    @cached_property
    def _nothing(self) -> Float[np.ndarray, "samples steps"]:
        """Squared errors of the present frame where the truth changes."""
        return region_errors(self._case, np.broadcast_to(self._case.before[:, None], self._case.truth.shape))

    @cached_property
    def _seen_truth(self) -> Sight:
        assert self._tools.network is not None
        return look(self._tools.network, _flat(self._case.truth))

    def _pictures(self, answer: Answer) -> Columns:
        flat = zip(_flat(answer.pictures), _flat(self._case.truth), _flat(self._case.changed), strict=True)
        scores = np.array([compare_pictures(*one) for one in flat]).T.reshape(4, *self._shape)
        columns = dict(zip(("psnr", "ssim", "region_psnr", "region_ssim"), scores, strict=True))
        gain = [
            region - psnr_from_mse(nothing) if np.isfinite(nothing) else np.nan
            for region, nothing in zip(columns["region_psnr"].flat, self._nothing.flat, strict=True)
        ]
        return {**columns, "region_gain_db": np.reshape(gain, self._shape)}

    def _perceptual(self, seen: Sight) -> Columns:
        regions = _flat(self._case.changed)
        return {
            "lite0_distance": lite0_distance(seen, self._seen_truth).reshape(self._shape),
            "region_lite0_distance": lite0_distance(seen, self._seen_truth, regions).reshape(self._shape),
        }

    def _crowds(self, seen: Sight) -> dict[str, np.ndarray]:
        regions = _flat(self._case.changed)
        whole = crowd(seen)
        region = np.full_like(whole, np.nan)
        region[regions.any(axis=(1, 2))] = crowd(seen, regions)
        return {
            name: rows.reshape(*self._shape, -1) for name, rows in zip(CROWDS, (whole, region), strict=True)
        }

    def _sequence(self, answer: Answer) -> Columns:
        """Of the future up to each step; chunks that begin at real frames are futures of their own."""
        case, pictures, truth, begin = self._case, answer.pictures, self._case.truth, self._case.before
        states = self._states()
        if case.mode == "simulate_anchored":
            begin = _flat(answer.begins)
            pictures, truth = (_flat(frames)[:, None] for frames in (pictures, truth))
            if states is not None:
                states = np.stack([_flat(states[:, :-1]), _flat(states[:, 1:])], axis=1)
        ends = range(1, truth.shape[1] + 1)
        changes = [temporal_psnr(pictures[:, :end], truth[:, :end], begin) for end in ends]
        whole, region = (np.stack(values, axis=1) for values in zip(*changes, strict=True))
        columns = {"temporal_psnr": whole, "region_temporal_psnr": region}
        if self._tools.motion is not None:
            columns |= motion_scores(self._tools.motion, pictures, truth, begin, states)
        return {name: values.reshape(self._shape) for name, values in columns.items()}

    def _states(self) -> Float[np.ndarray, "samples points proprio_dim"] | None:
        before, after = self._case.before_proprio, self._case.proprio
        if before is None or after is None:
            return None
        return np.concatenate([before[:, None], after], axis=1)

    def _language(self, answer: Answer) -> Columns:
        """Of every step; of the whole episode, once, in its first row."""
        if self._case.texts is None or answer.texts is None:
            return {}
        rows = list(zip(answer.texts, self._case.texts, strict=True))
        accuracy = [[float(a == b) for a, b in zip(*row, strict=True)] for row in rows]
        order = [[step_order(a[: k + 1], b[: k + 1]) for k in range(self._case.steps)] for a, b in rows]
        columns = {"step_accuracy": np.array(accuracy), "step_order": np.array(order)}
        if self._case.watch is not None and answer.watched is not None:
            said, true = boundaries(answer.watched), boundaries(self._case.watch.texts)
            columns["boundary_f1"] = np.full(self._shape, np.nan)
            columns["boundary_f1"][0, 0] = boundary_f1(said, true, BOUNDARY_TOLERANCE)
        return columns

    def _actions(self, answer: Answer, reader: Reader) -> Columns:
        """What can be read between the frames at both ends of each step."""
        scale, readable = reader.action_scale_numbers, reader.readable_actions
        read = reader.read_actions(_flat(answer.begins), _flat(answer.pictures))
        done = self._mean_actions(self._case.actions)
        error = inverse_dynamics_error(read, done, scale, readable).reshape(self._shape)
        columns = {"inverse_dynamics_error": error}
        others = self._case.elsewhere[0].actions if self._case.elsewhere else None
        if answer.under_others is None or others is None:
            return columns
        count = len(read)  # on its own frames, only the first step of both futures begins at one frame
        rows = np.arange(0, count, self._case.steps) if self._case.mode == "simulate" else np.arange(count)
        begins = _flat(answer.begins)[rows] if answer.others_begin is None else answer.others_begin
        change = read[rows] - reader.read_actions(begins, _flat(answer.under_others)[rows])
        wanted = (done - self._mean_actions(others))[rows]
        measures = {"action_following": action_following, "action_direction": action_direction}
        for name, measure in measures.items():
            values = np.full(count, np.nan)
            values[rows] = measure(change, wanted, scale, readable)
            columns[name] = values.reshape(self._shape)
        return columns

    def _mean_actions(
        self, actions: Float[np.ndarray, "samples time action_dim"] | None
    ) -> Float[np.ndarray, "rows action_dim"]:
        assert actions is not None
        samples, steps = self._shape
        return actions.reshape(samples * steps, -1, actions.shape[-1]).mean(axis=1)


def _flat(frames: np.ndarray) -> np.ndarray:
    """Samples and steps as one axis."""
    return frames.reshape(-1, *frames.shape[2:])
