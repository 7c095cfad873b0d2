"""Tells a policy in which environment it acts."""

from collections.abc import Mapping
from typing import Any

from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.processor import InfoProcessorStep, ProcessorStepRegistry

FINGERPRINT = "fingerprint"
"""Key of the environment's fingerprint in what LeRobot passes on as `info`."""


@ProcessorStepRegistry.register(name="emu_environment_fingerprint")
class FingerprintStep(InfoProcessorStep):
    """Puts the environment's fingerprint beside the observation.

    A policy that was made with one preset of the renderer and is run with another can so refuse; LeRobot
    itself compares names and sizes only.
    """

    def __init__(self, fingerprint: Mapping[str, Any]) -> None:
        self._fingerprint = dict(fingerprint)

    def info(self, info: dict[str, Any]) -> dict[str, Any]:
        """Adds the fingerprint."""
        return {**info, FINGERPRINT: self._fingerprint}

    def get_config(self) -> dict[str, Any]:
        """What `__init__` takes."""
        return {"fingerprint": self._fingerprint}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """No feature changes."""
        return features
