"""The published tasks on any engine: a question and reference pictures in, text and frames out."""

from collections.abc import Sequence

import torch
from jaxtyping import Int

from emu_agent.decoding.stream import GenerationConfig, TokenStream, open_stream
from emu_agent.errors import ConfigError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.official.presets import TaskPreset, task_preset


def begin(
    engine: ImaginationEngine,
    task: str,
    question: str,
    references: Sequence[Int[torch.Tensor, "_ _"]] = (),
    config: GenerationConfig | None = None,
    generator: torch.Generator | None = None,
) -> TokenStream:
    """Ask a task's question; `read_events` gives the answer as it is written.

    Args:
        engine: whose model answers.
        task: one of `TASK_PRESETS`.
        question: what is wanted, in words.
        references: codes of reference pictures, in their order.
        config: settings; None are the published ones of the task.
        generator: source of randomness, where the model lives.

    Raises:
        UnknownNameError: there is no such task.
        ConfigError: too many or too few references, or no room for the prompt or a picture.
    """
    preset = task_preset(task)
    check_references(task, preset, len(references))
    sequence_format = engine.sequence_format
    prompt = sequence_format.prompt(task, question, references)
    unconditional = sequence_format.unconditional_prompt(*references)
    config = config or preset.generation
    stream = open_stream(engine.world_model, sequence_format, prompt, unconditional, config, generator)
    grid = stream.grammar.grid
    if grid is not None and grid.block_length > stream.room:
        raise ConfigError(
            f"a picture of {grid.size_text} codes takes {grid.block_length} tokens, but only {stream.room} "
            f"may follow the prompt of {len(prompt)}: max_new_tokens={config.max_new_tokens}, and the model "
            f"reads {engine.world_model.config.max_position_embeddings} in all"
        )
    return stream


def check_references(task: str, preset: TaskPreset, count: int) -> None:
    """Refuse a number of reference pictures that a task does not take.

    Raises:
        ConfigError: it does not.
    """
    fewest, most = preset.references
    if not fewest <= count <= most:
        wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        raise ConfigError(f"task={task} takes {wanted} reference pictures, but there are {count}")
