import torch
from emu_policies import ActionHeadConfig
from emu_policies.head.chunk_decoder import ChunkDecoder

CONFIG = ActionHeadConfig(dim=24, num_heads=3, depth=2, chunk_size=4, action_dim=3)


def decoder_and_inputs() -> tuple[ChunkDecoder, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return ChunkDecoder(CONFIG).eval(), torch.randn(2, 3, 4, 24), torch.randn(2, 7, 24)


def test_draws_do_not_see_each_other() -> None:
    decoder, queries, context = decoder_and_inputs()
    keys_values = decoder.keys_values(context)
    together = decoder(queries, keys_values)
    alone = torch.cat([decoder(queries[:, i : i + 1], keys_values) for i in range(3)], dim=1)
    torch.testing.assert_close(together, alone)


def test_rows_do_not_see_each_other() -> None:
    decoder, queries, context = decoder_and_inputs()
    together = decoder(queries, decoder.keys_values(context))
    alone = torch.cat(
        [decoder(queries[i : i + 1], decoder.keys_values(context[i : i + 1])) for i in range(2)]
    )
    torch.testing.assert_close(together, alone)


def test_actions_that_are_not_valid_are_invisible() -> None:
    decoder, queries, context = decoder_and_inputs()
    keys_values = decoder.keys_values(context)
    valid = torch.tensor([[True, True, False, False], [True, True, True, True]])
    changed = queries.clone()
    changed[0, :, 2:] = torch.randn(3, 2, 24)
    before, after = decoder(queries, keys_values, valid), decoder(changed, keys_values, valid)
    torch.testing.assert_close(before[0, :, :2], after[0, :, :2])
    assert not torch.allclose(before[0, :, 2:], after[0, :, 2:])
    assert not torch.allclose(decoder(queries, keys_values)[0, :, :2], before[0, :, :2])
