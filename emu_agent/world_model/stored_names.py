"""Old names in stored checkpoints, and what they are called now; applied whenever one is read."""

from typing import Any

CONFIG_KEYS = {
    "trust": "confidence",
    "trust_threshold": "confidence_threshold",
    "came_true": "achieved",
    "moments": "decisions",
    "moments_seen": "decisions_seen",
    "moments_per_second": "decisions_per_second",
    "play": "perturbed",
    "pursuit": "subgoals",
}
"""Keys of `config.json`, at any depth."""
TENSOR_PARTS = {
    "trust.": "confidence.",
    "context_encoder.wrist.": "context_encoder.cameras.0.",
    "context_encoder.step_text.": "context_encoder.subtask_text.",
}
"""What names of tensors may hold."""


def current_config(values: Any) -> Any:
    """Contents of a `config.json` with today's keys."""
    if isinstance(values, list):
        return [current_config(value) for value in values]
    if not isinstance(values, dict):
        return values
    return {CONFIG_KEYS.get(key, key): current_config(value) for key, value in values.items()}


def current_tensor(name: str) -> str:
    """Today's name of a stored tensor."""
    for old, new in TENSOR_PARTS.items():
        name = name.replace(old, new)
    return name
