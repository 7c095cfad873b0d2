"""Scripted experts: they see the simulation's state, and recover from noise and mistakes."""

from emu_envs.experts.perturbation import Perturbation
from emu_envs.experts.robosuite import LiftExpert

__all__ = ["LiftExpert", "Perturbation"]
