"""Beginning from a checkpoint: what of its weights fits a new part is taken over, the rest is told."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from emu_agent.errors import CheckpointError
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.checkpoint import bundled_checkpoint

_log = logging.getLogger(__name__)

Words = tuple[Vocabulary, BytePairTokenizer]
"""All ids of a model, and the text that the first of them stand for."""


def starting_folder(start: str | Path) -> Path:
    """The checkpoint that `start` names; `bundled` is the one inside the package."""
    return bundled_checkpoint() if start == "bundled" else Path(start)


def carry_over(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> list[str]:
    """Load the weights whose names and shapes fit, and return (and log) the names of the others.

    Args:
        module: new; what is not carried over stays as it was built.
        tensors: of a checkpoint's part.
        source: where they are from.

    Raises:
        CheckpointError: none fits.
    """
    own = module.state_dict()
    fitting = {key: t for key, t in tensors.items() if key in own and own[key].shape == t.shape}
    if not fitting:
        raise CheckpointError(f"nothing of {source} fits this part; leave start out, or begin from another")
    module.load_state_dict({**own, **fitting})
    left = sorted(own.keys() - fitting.keys())
    if left:
        names = ", ".join(left)
        _log.warning("start=%s: %d of %d weights begin anew: %s", source, len(left), len(own), names)
    return left


def translated(
    tensors: Mapping[str, Tensor], old: Words, new: Words, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights of a world model for another vocabulary.

    Ids of text are carried over where their bytes are the same, control tokens by their role, visual tokens
    and action bins by their number if there are as many.

    Args:
        tensors: of the world model to begin from.
        old: its vocabulary.
        new: the vocabulary that is wanted.
        fresh: weights of a new world model, for ids without an ancestor.
    """
    before, after = id_pairs(old, new)
    result = dict(tensors)
    for key, tensor in tensors.items():
        rows = fresh.get(key)
        if rows is not None and (len(tensor), len(rows)) == (old[0].size, new[0].size):
            result[key] = rows.clone()
            result[key][after] = tensor[before].to(rows)
    missing = new[0].size - len(after)
    if missing:
        _log.warning("%d of %d ids of the vocabulary are new and begin anew", missing, new[0].size)
    return result


def id_pairs(old: Words, new: Words) -> tuple[Tensor, Tensor]:
    """Ids that mean the same in two vocabularies: those of the old one and those of the new one."""
    (vocabulary, text), (wanted, words) = old, new
    known = text.tokens()
    pairs = [(known[token], own) for token, own in words.tokens().items() if token in known]
    pairs += [(vocabulary.roles[role], own) for role, own in wanted.roles.items() if role in vocabulary.roles]
    for before, after in ((vocabulary.visual, wanted.visual), (vocabulary.action, wanted.action)):
        pairs += zip(before, after, strict=True) if len(before) == len(after) else ()
    first, second = zip(*pairs, strict=True)
    return torch.tensor(first), torch.tensor(second)
