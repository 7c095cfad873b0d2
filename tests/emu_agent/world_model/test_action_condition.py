"""Actions that are added to the tokens of a simulated frame: training, decoding and fast decoding agree."""

import pytest
import torch

from emu_agent.errors import CheckpointError
from emu_agent.world_model.config import preset
from emu_agent.world_model.fast import FastModel
from emu_agent.world_model.transformer import WorldModel

CONFIG = preset("debug", vocab_size=50, initializer_range=0.2, max_position_embeddings=64, action_features=6)
RANDOM = torch.Generator().manual_seed(1)
PROMPT, ANSWER = (torch.randint(50, (2, length), generator=RANDOM) for length in (5, 7))
ACTIONS = torch.randn(2, 6, generator=RANDOM)


def model(*, listens: bool = True) -> WorldModel:
    torch.manual_seed(0)
    made = WorldModel(CONFIG).eval().requires_grad_(False)
    if listens:
        made.action_condition[-1].weight.normal_(std=0.5)
    return made


def trained_view(made: WorldModel, actions: torch.Tensor) -> torch.Tensor:
    """Hidden states of the answer as training reads them: the whole sequence at once."""
    ids = torch.cat((PROMPT, ANSWER), dim=1)
    answers = torch.arange(ids.shape[1]) >= PROMPT.shape[1]
    added = made.condition(actions)[:, None] * answers[None, :, None]
    return made.hidden_states(ids, added=added)[:, PROMPT.shape[1] :]


def decoded_view(made: WorldModel | FastModel, actions: torch.Tensor) -> torch.Tensor:
    """The same as decoders read it: behind a cache that holds what is added."""
    cache, _ = made.prefill(PROMPT, max_length=40)
    cache.condition = made.condition(actions)
    return torch.cat([made.hidden_states(part, cache) for part in ANSWER.split([3, 1, 3], dim=1)], dim=1)


def test_a_new_model_does_not_heed_actions_yet() -> None:
    made = model(listens=False)
    assert torch.equal(made.condition(ACTIONS), torch.zeros(2, CONFIG.hidden_size))


def test_actions_change_what_is_read_behind_the_prompt() -> None:
    assert not torch.allclose(trained_view(model(), ACTIONS), trained_view(model(), -ACTIONS), atol=1e-2)


@pytest.mark.parametrize("fast", [False, True])
def test_decoders_see_what_was_trained(fast: bool) -> None:
    slow = model()
    decoded = decoded_view(FastModel(slow, compile=False) if fast else slow, ACTIONS)
    torch.testing.assert_close(decoded, trained_view(slow, ACTIONS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fast", [False, True])
def test_copies_of_a_cache_keep_the_actions_of_their_rows(fast: bool) -> None:
    slow = model()
    reader = FastModel(slow, compile=False) if fast else slow
    cache, _ = reader.prefill(PROMPT, max_length=40)
    cache.condition = reader.condition(ACTIONS)
    chosen = cache.select(torch.tensor([1, 1, 0]))
    forked, second = cache.fork(2), cache.view(1, 2)
    for copy, rows in ((chosen, [1, 1, 0]), (forked, [0, 0, 1, 1]), (second, [1])):
        states = reader.hidden_states(ANSWER[rows], copy)
        torch.testing.assert_close(states, trained_view(slow, ACTIONS)[rows], atol=1e-5, rtol=1e-5)


def test_a_model_without_the_input_says_so() -> None:
    plain = WorldModel(preset("debug", vocab_size=50))
    with pytest.raises(CheckpointError, match="no input for actions"):
        plain.condition(ACTIONS)
