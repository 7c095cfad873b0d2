"""Scripted experts: they see the simulation's state, label frames with step instructions, and recover."""

from emu_envs.experts.lift import LiftExpert
from emu_envs.experts.perturbation import Perturbation

__all__ = ["LiftExpert", "Perturbation"]
