from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from emu_policies import (
    ActionHead,
    ActionHeadConfig,
    HeadBatch,
    HeadContext,
    Normalizer,
    SubtaskState,
    load_head,
)
from emu_policies.head.action_head import draw_times, encode_time

from emu_agent.world_model.checkpoint import write_checkpoint

MakeHead = Callable[..., ActionHead]
MakeBatch = Callable[..., HeadBatch]


def context_of(head: ActionHead, batch: HeadBatch, *, imagine: bool = True) -> HeadContext:
    imagination = batch.imagination_features if imagine else None
    return head.encode_context(batch.frame_features, batch.images, batch.proprio, imagination)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(head: ActionHead, batch: HeadBatch, updates: int) -> None:
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=updates)
    generator = seeded(0)
    head.train()
    for _ in range(updates):
        loss, _ = head.loss(batch, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    head.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "updates"), [("flow", 80), ("regression", 80)])
def test_head_learns_the_right_actions_for_each_context(
    make_head: MakeHead, make_batch: MakeBatch, kind: str, updates: int
) -> None:
    batch = make_batch(6)
    head = make_head(kind=kind, flow_draws=8, dim=24, depth=1)
    fit(head, batch, updates)
    for imagine in (True, False):
        chunk = head.sample(context_of(head, batch, imagine=imagine), seeded(1))
        assert (chunk - batch.actions).abs().mean() < 0.05
        assert (chunk - batch.actions.roll(1, 0)).abs().mean() > 0.3


@pytest.mark.slow
def test_flow_keeps_two_ways_apart_where_regression_cannot(
    make_head: MakeHead, make_batch: MakeBatch
) -> None:
    batch = make_batch(1)
    rows = {name: value.expand(16, *value.shape[1:]) for name, value in vars(batch).items()}
    ways = torch.tensor([-0.7, 0.7]).repeat(8)[:, None, None].expand(16, 4, 3)
    batch = replace(batch, **{**rows, "actions": ways})
    head = make_head(kind="flow", flow_draws=4, dim=24, depth=1)
    fit(head, batch, 60)
    chunk = head.sample(context_of(head, batch), seeded(1))
    assert (chunk.abs() - 0.7).abs().mean() < 0.1
    assert 0.2 < (chunk[:, 0, 0] > 0).float().mean() < 0.8


def test_imagination_and_its_absence_matter(make_head: MakeHead, make_batch: MakeBatch) -> None:
    head, batch = make_head().eval(), make_batch(2)
    imagined = head.sample(context_of(head, batch), seeded(0))
    assert not torch.allclose(imagined, head.sample(context_of(head, batch, imagine=False), seeded(0)))
    other = replace(batch, imagination_features=batch.imagination_features + 1.0 * torch.randn(2, 5, 16))
    assert not torch.allclose(imagined, head.sample(context_of(head, other), seeded(0)))


def test_forgetting_equals_never_having_imagined(make_head: MakeHead, make_batch: MakeBatch) -> None:
    head, batch = make_head().eval(), make_batch(2)
    tokens = context_of(head, batch).tokens
    without = torch.tensor([[True, True], [False, False]])
    forgotten = head.context_encoder.forget_imagination(tokens, without)
    never = context_of(head, batch, imagine=False).tokens
    assert torch.equal(forgotten.imagination[0], never.imagination[0])
    assert torch.equal(forgotten.imagination[1], tokens.imagination[1])
    for part, places in enumerate((slice(0, 1), slice(1, None))):
        alone = head.context_encoder.forget_imagination(tokens, torch.eye(2, dtype=torch.bool)[[part]])
        changed = (alone.imagination != tokens.imagination).any(-1)
        assert changed[:, places].all()
        assert changed.sum() == changed[:, places].numel()


def test_reused_context_equals_encoding_it_at_every_flow_step(
    make_head: MakeHead, make_batch: MakeBatch
) -> None:
    head, batch = make_head().eval(), make_batch(2)
    expected = torch.randn(2, 1, 4, 3, generator=seeded(3))
    for step in range(head.config.num_flow_steps):
        time = torch.full((2, 1), step / head.config.num_flow_steps)
        with torch.no_grad():
            clean = head._denoise(expected, time, context_of(head, batch))
        expected = expected + (clean - expected) / (1.0 - time[:, :, None, None]) / head.config.num_flow_steps
    chunk = head.sample(context_of(head, batch), seeded(3))
    torch.testing.assert_close(chunk, expected[:, 0].clamp(-1.0, 1.0))


@pytest.mark.parametrize("kind", ["flow", "regression"])
def test_padded_actions_do_not_influence_the_loss(
    make_head: MakeHead, make_batch: MakeBatch, kind: str
) -> None:
    head, batch = make_head(kind=kind), make_batch(3)
    valid = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    batch = replace(batch, action_valid=valid)
    padded = replace(batch, actions=torch.where(valid[:, :, None], batch.actions, 0.9))
    assert not torch.equal(batch.actions, padded.actions)
    losses = [head.loss(b, seeded(0))[0] for b in (batch, padded)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    everything = head.loss(replace(padded, action_valid=torch.ones_like(valid)), seeded(0))[0]
    assert not torch.allclose(losses[0], everything)


def test_what_the_keyframe_changes_is_added_from_nothing(make_head: MakeHead, make_batch: MakeBatch) -> None:
    batch, plain = make_batch(2), make_head().eval()
    head = make_head(keyframe_difference=True).eval()
    assert not head.load_state_dict(plain.state_dict(), strict=False).unexpected_keys

    def shown(batch: HeadBatch) -> list[torch.Tensor]:
        return [context_of(one, batch).tokens.imagination for one in (plain, head)]

    before, after = shown(batch)
    assert torch.equal(before, after)
    for weight in head.context_encoder.get_submodule("difference").parameters():
        torch.nn.init.normal_(weight)
    before, after = shown(batch)
    assert torch.equal(before[:, 0], after[:, 0])  # the subtask's text
    assert not torch.isclose(before[:, 1:], after[:, 1:]).all(-1).any()
    text = batch.imagination_features[:, :1]
    still = replace(batch, imagination_features=torch.cat((text, batch.frame_features), 1))
    before, after = shown(still)
    assert (after - before)[:, 1:].std(dim=(0, 1)).max() < 1e-5  # no change: the same everywhere


def test_a_stale_imagination_is_kept_from_the_actions_but_not_from_the_monitor(
    make_head: MakeHead, make_batch: MakeBatch
) -> None:
    head, batch = make_head().eval(), make_batch(3)
    wrong = replace(batch, imagination_features=batch.imagination_features.flip(0))

    def losses(label: SubtaskState) -> tuple[dict[str, torch.Tensor], ...]:
        labels = torch.full((3,), int(label))
        return tuple(head.loss(replace(b, monitor_label=labels), seeded(0))[1] for b in (batch, wrong))

    stale, active = losses(SubtaskState.STALE), losses(SubtaskState.ACTIVE)
    assert torch.equal(stale[0]["action_loss"], stale[1]["action_loss"])
    assert not torch.equal(stale[0]["monitor_loss"], stale[1]["monitor_loss"])
    assert not torch.equal(active[0]["action_loss"], active[1]["action_loss"])


def test_cameras_are_dropped_as_a_whole_in_their_share_of_the_rows(
    make_head: MakeHead, make_batch: MakeBatch
) -> None:
    head, batch = make_head(cameras=("a", "b"), camera_dropout=0.25).train(), make_batch(1)
    images = batch.images.expand(1000, 2, -1, -1, -1)
    tokens = head.context_encoder._cameras(images, seeded(0), None)
    null = head.context_encoder.no_camera.flatten(0, 1)
    dropped = (tokens == null).all(dim=-1)
    assert dropped.float().mean(dim=0).tolist() == pytest.approx([0.25, 0.25], abs=0.04)
    assert not (head.eval().context_encoder._cameras(images, None, None) == null).all(dim=-1).any()


def test_a_head_of_an_older_checkpoint_is_read(
    make_head: MakeHead, make_batch: MakeBatch, tmp_path: Path
) -> None:
    head, batch = make_head().eval(), make_batch(2)
    tensors = {
        f"head.{name.replace('cameras.0.', 'wrist.')}": tensor for name, tensor in head.state_dict().items()
    }
    config = head.config.to_dict()
    old = {**config, "wrist_camera": "wrist", "wrist_size": 32}
    for key in ("cameras", "camera_size", "camera_dropout", "fit"):
        del old[key]
    folder = write_checkpoint(tmp_path / "old", {"parts": {"head": old}}, tensors)
    loaded = load_head(folder)
    expected = head.sample(context_of(head, batch), seeded(0))
    assert torch.equal(loaded.sample(context_of(loaded, batch), seeded(0)), expected)


def test_imagination_is_dropped_in_its_share_of_the_rows(make_head: MakeHead, make_batch: MakeBatch) -> None:
    head, batch = make_head(imagination_dropout=0.3).train(), make_batch(1)
    rows = {name: value.expand(2000, *value.shape[1:]) for name, value in vars(batch).items()}
    dropped = head._without_imagination(replace(batch, **rows), seeded(0))
    assert torch.equal(*dropped.unbind(1))
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.04)
    parted = make_head(imagination_dropout=0.0, part_dropout=0.2).train()
    shares = parted._without_imagination(replace(batch, **rows), seeded(0)).float()
    assert shares.mean(0).tolist() == pytest.approx([0.1, 0.1], abs=0.03)
    assert shares.sum(1).max() == 1
    assert not head.eval()._without_imagination(batch, seeded(0)).any()


def test_same_generator_same_chunk(make_head: MakeHead, make_batch: MakeBatch) -> None:
    head = make_head().eval()
    context = context_of(head, make_batch(2))
    assert torch.equal(head.sample(context, seeded(5)), head.sample(context, seeded(5)))
    assert not torch.equal(head.sample(context, seeded(5)), head.sample(context, seeded(6)))


def test_actions_are_in_the_units_of_the_dataset_and_within_bounds(make_batch: MakeBatch) -> None:
    settings = {"feature_dim": 16, "grid_rows": 2, "grid_cols": 2, "camera_size": (32, 32), "proprio_dim": 5}
    config = ActionHeadConfig(**settings, action_dim=3, chunk_size=4, dim=24, num_heads=3)
    normalizer = Normalizer(torch.tensor([0.5, 0.0, -1.0]), torch.tensor([0.0, 0.0, 5.0]))
    head = ActionHead(config, normalizer).eval()
    chunk = head.sample(context_of(head, make_batch(4)), seeded(0))
    assert chunk.shape == (4, 4, 3)
    assert chunk.abs().max() <= 1.0
    assert (chunk[..., 0] - 0.5).abs().max() < 0.1
    assert (chunk[..., 2] == -1.0).any()


def test_head_comes_back_from_a_checkpoint_with_its_normalizers(
    make_batch: MakeBatch, make_head: MakeHead, tmp_path: object
) -> None:
    head, batch = make_head().eval(), make_batch(2)
    head.action_normalizer.mean.fill_(0.25)
    head.context_encoder.proprio_normalizer.std.fill_(2.0)
    tensors = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    folder = write_checkpoint(str(tmp_path), {"parts": {"head": head.config.to_dict()}}, tensors)
    loaded = load_head(folder)
    expected = head.sample(context_of(head, batch), seeded(0))
    assert torch.equal(loaded.sample(context_of(loaded, batch), seeded(0)), expected)


def test_default_head_is_small() -> None:
    assert sum(p.numel() for p in ActionHead(ActionHeadConfig()).parameters()) < 2_500_000


def test_every_parameter_is_trained(make_head: MakeHead, make_batch: MakeBatch) -> None:
    for kind in ("flow", "regression"):
        head = make_head(kind=kind, imagination_dropout=0.5)
        head(**vars(make_batch(8)))[0].backward()
        assert [name for name, p in head.named_parameters() if p.grad is None] == []


def test_times_favour_noise_and_codes_tell_them_apart() -> None:
    times = draw_times((4000,), torch.device("cpu"), seeded(0))
    assert times.min() >= 0.0
    assert times.max() < 1.0
    assert times.mean().item() == pytest.approx(0.4, abs=0.02)
    codes = encode_time(torch.linspace(0, 1, 50), 16)
    assert torch.pdist(codes).min() > 0.05


def test_actions_in_a_robots_own_units_are_not_cut_off(make_head: MakeHead, make_batch: MakeBatch) -> None:
    batch = make_batch(1)

    def largest(**settings: float | None) -> float:
        head = make_head(kind="regression", **settings).eval()
        head.action_normalizer.mean.fill_(40.0)
        return head.sample(context_of(head, batch)).abs().max().item()

    assert largest() == 1.0
    assert largest(action_limit=None) > 30.0
