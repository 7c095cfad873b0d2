"""Steps of joints that can still stop in time."""

import numpy as np
from jaxtyping import Bool, Float

from emu_policies.safety.limits import ActionLimits

type Joints = Float[np.ndarray, " action_dim"]
type Marks = Bool[np.ndarray, " action_dim"]


class Motion:
    """Where a robot has been told to be, how fast it goes there, and where it may be told to go next.

    Each joint is on its own. In one period it moves by d; braking takes at most `brake` off |d| per period.
    A step is admissible if it keeps the bounds on step, velocity and acceleration, and if braking from it
    ends inside the position bounds. From an admissible step, braking is admissible again: by induction the
    robot can always be stopped within all bounds.
    """

    def __init__(self, limits: ActionLimits, position: Joints) -> None:
        """The robot stands still at `position`, which must be within the bounds."""
        self.lower, self.upper = limits.array("lower"), limits.array("upper")
        self.max_step = limits.array("max_step")
        self.velocity_step = limits.array("max_velocity") * limits.period_s
        self.brake = limits.array("max_acceleration") * limits.period_s**2
        self.position = position
        self.displacement = np.zeros_like(position)

    def advance(self, sent: Joints) -> None:
        """The robot has been told to go there."""
        self.displacement = sent - self.position
        self.position = sent

    def rest(self) -> None:
        """The robot had time to come to rest where it was told to be."""
        self.displacement = np.zeros_like(self.position)

    def violations(self, wanted: Joints) -> dict[str, Marks]:
        """Which bounds a step would break, joint by joint."""
        move = wanted - self.position
        outside = (wanted < self.lower) | (wanted > self.upper)
        return {
            "position": outside,
            "step": abs(move) > self.max_step,
            "velocity": abs(move) > self.velocity_step,
            "acceleration": abs(move - self.displacement) > self.brake,
            "braking": ~outside & self._runs_out_of_room(wanted, move),
        }

    def nearest(self, wanted: Joints) -> Joints:
        """The admissible step that comes closest to a wanted one; the wanted one itself if admissible."""
        inside = np.clip(wanted, self.lower, self.upper)
        broken = np.logical_or.reduce(list(self.violations(inside).values()))
        fastest = np.minimum(self.max_step, self.velocity_step)
        least = np.maximum(
            np.maximum(self.displacement - self.brake, -fastest),
            -_longest_step(self.position - self.lower, self.brake),
        )
        most = np.minimum(
            np.minimum(self.displacement + self.brake, fastest),
            _longest_step(self.upper - self.position, self.brake),
        )
        move = np.minimum(np.maximum(inside - self.position, least), most)
        return np.where(broken, np.clip(self.position + move, self.lower, self.upper), inside)

    def braking_path(self, sent: Joints) -> Float[np.ndarray, "steps action_dim"]:
        """The positions from a step on until the robot has come to rest."""
        move = sent - self.position
        path = [sent]
        while (move != 0).any():
            move = np.sign(move) * np.maximum(abs(move) - self.brake, 0.0)
            path.append(path[-1] + move)
        return np.stack(path)

    def _runs_out_of_room(self, wanted: Joints, move: Joints) -> Marks:
        with np.errstate(over="ignore", invalid="ignore"):
            after = _braking_distance(abs(move), self.brake)
        # Put so that what is no number, for being too large, counts as running out.
        enough_above = wanted + np.where(move > 0, after, 0.0) <= self.upper
        enough_below = wanted - np.where(move < 0, after, 0.0) >= self.lower
        return ~(enough_above & enough_below)


def _braking_distance(move: Joints, brake: Joints) -> Joints:
    """Way after a step of length `move`: the sum of move - k brake over k = 1, 2, ... while positive."""
    periods = np.floor(move / brake)
    return np.where(periods > 0, periods * move - _triangle(periods, brake), 0.0)


def _longest_step(room: Joints, brake: Joints) -> Joints:
    """The longest step that, braking included, covers no more than `room`."""
    bounded = np.isfinite(room) & np.isfinite(brake)
    room_or_0, brake_or_1 = np.where(bounded, room, 0.0), np.where(bounded, brake, 1.0)
    periods = np.floor((np.sqrt(1.0 + 8.0 * room_or_0 / brake_or_1) - 1.0) / 2.0)
    return np.where(bounded, (room_or_0 + _triangle(periods, brake_or_1)) / (periods + 1.0), room)


def _triangle(periods: Joints, brake: Joints) -> Joints:
    """Brake times (1 + 2 + ... + periods); 0 for no period, even if braking is unbounded."""
    return np.where(periods > 0, brake, 0.0) * periods * (periods + 1.0) / 2.0
