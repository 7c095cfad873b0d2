"""Scripted experts: they see the simulation's state, and recover from noise and mistakes."""

from emu_envs.experts.lift import LiftExpert
from emu_envs.experts.perturbation import Perturbation

__all__ = ["LiftExpert", "Perturbation"]
