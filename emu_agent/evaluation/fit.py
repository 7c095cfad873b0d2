"""Whether a model and recordings fit together, before any work."""

from emu_agent.errors import ConfigError, DatasetError
from emu_agent.evaluation.adapters.protocol import WorldModelAdapter
from emu_agent.evaluation.recordings import Facts


def refuse_misfit(facts: Facts, adapter: WorldModelAdapter, chunk: int) -> None:
    """Refuse what cannot work.

    Args:
        facts: Of the recordings.
        adapter: The model.
        chunk: Frames between two horizons.

    Raises:
        ConfigError: The model does not take the pictures, the actions or the horizons.
        DatasetError: There is no episode, or nothing that the model can be asked.
    """
    abilities = adapter.abilities
    if not facts.episodes:
        raise DatasetError(f"{facts.path} has no episodes")
    if abilities.picture_size not in (None, facts.size):
        here, there = (" x ".join(map(str, size)) for size in (facts.size, abilities.picture_size))
        raise ConfigError(f"{facts.path} has pictures of {here} pixels, {adapter.name} takes {there}")
    simulates = abilities.simulate and "actions" in facts.holds
    if simulates and abilities.action_dim not in (None, facts.action_dim):
        raise ConfigError(
            f"actions of {facts.path} have {facts.action_dim} numbers, {adapter.name} takes "
            f"{abilities.action_dim} numbers"
        )
    if simulates and abilities.chunk not in (None, chunk):
        raise ConfigError(
            f"the horizons are {chunk} frames apart, but {adapter.name} simulates chunks of "
            f"{abilities.chunk}: give multiples of {abilities.chunk}"
        )
    if not simulates and not abilities.imagine:
        raise DatasetError(f"{facts.path} has no actions, and without them {adapter.name} predicts nothing")
