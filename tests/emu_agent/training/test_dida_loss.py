"""DiDA's loss over branches of one state: the prompt is read once, and nothing else differs."""

from dataclasses import replace

import torch

from emu_agent.decoding.noise import DidaConfig
from emu_agent.tokens.action import NUM_FEATURES, ActionBins
from emu_agent.tokens.sequence import SequenceFormat, TokenSequence
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.dida_loss import DidaLoss
from emu_agent.training.sequences import padded, simulate_sequence
from emu_agent.world_model.config import preset
from emu_agent.world_model.transformer import WorldModel

TEXT = BytePairTokenizer.train([], 256)
FORM = SequenceFormat(Vocabulary.compact(TEXT.num_text, num_codes=16, num_action_bins=8), TEXT)
BINS = ActionBins((-1.0,), (1.0,), 8)
CODES = torch.randint(16, (5, 2, 3), generator=torch.Generator().manual_seed(0))
LOSS = DidaLoss(FORM.vocabulary, DidaConfig(noise="mask"), copies=1, full_noise=1.0)


def sequence(then: int, action: float) -> TokenSequence:
    """Frame 0, and after some action another."""
    codes, actions = CODES[[0, then]], torch.full((1, 1), action)
    return simulate_sequence(FORM, codes, BINS, actions, 0, 0.5, changed_weight=3.0, conditioned=True)


def model() -> WorldModel:
    torch.manual_seed(0)
    sizes = {"initializer_range": 0.2, "action_features": NUM_FEATURES}
    made = WorldModel(preset("debug", vocab_size=FORM.vocabulary.size, **sizes)).eval()
    torch.nn.init.normal_(made.action_condition[-1].weight, std=0.5)
    return made.requires_grad_(False)


def loss(made: WorldModel, sequences: list[TokenSequence]) -> torch.Tensor:
    batch = padded(sequences, FORM.vocabulary.pad)
    generator = torch.Generator().manual_seed(0)
    return LOSS.noisy_pass(made, LOSS.layout(batch), torch.zeros(16, 2), generator, batch).loss


def test_branches_behind_one_prompt_cost_what_they_cost_apart() -> None:
    branches = [sequence(1, 0.5), sequence(2, -0.5), sequence(3, 1.0)]
    together = replace(branches[0], branches=tuple(branches[1:]))
    torch.testing.assert_close(loss(model(), [together]), loss(model(), branches))


def test_rows_with_fewer_branches_are_filled_up() -> None:
    few = replace(sequence(1, 0.5), branches=(sequence(2, -0.5),))
    many = replace(sequence(3, 1.0), branches=(sequence(4, -1.0), sequence(2, 0.2)))
    apart = [one for row in (few, many) for one in (replace(row, branches=()), *row.branches)]
    torch.testing.assert_close(loss(model(), [few, many]), loss(model(), apart))


def test_a_branch_is_read_with_its_own_action() -> None:
    pair = [replace(sequence(1, 0.5), branches=(sequence(2, action),)) for action in (-0.5, 0.9)]
    assert not torch.isclose(loss(model(), pair[:1]), loss(model(), pair[1:]), atol=1e-3)
