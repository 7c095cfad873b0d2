from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from emu_policies import ActionHead, HeadBatch, SubtaskState


def situations(batch: HeadBatch, generator: torch.Generator) -> HeadBatch:
    """A third of the keyframes show the frame (done), a third another text (stale), the rest neither."""
    rows = len(batch.proprio)
    labels = torch.arange(rows) % len(SubtaskState)
    imagination = batch.imagination_features.clone()
    reached = batch.frame_features + 0.1 * torch.randn(batch.frame_features.shape, generator=generator)
    imagination[:, 0] = torch.where(labels[:, None] == SubtaskState.STALE, 1.0, -1.0) * torch.linspace(
        -1, 1, 16
    )
    done = (labels == SubtaskState.DONE)[:, None, None]
    imagination[:, 1:] = torch.where(done, reached, imagination[:, 1:])
    return replace(batch, imagination_features=imagination, monitor_label=labels)


@pytest.mark.slow
def test_monitor_tells_the_states_of_a_step_apart(
    make_head: Callable[..., ActionHead], make_batch: Callable[..., HeadBatch], generator: torch.Generator
) -> None:
    head = make_head()
    parameters = [*head.context_encoder.parameters(), *head.monitor.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)

    def logits(batch: HeadBatch) -> torch.Tensor:
        return head.monitor(
            head.context_encoder(
                batch.frame_features, batch.images, batch.proprio, batch.imagination_features
            )
        )

    for seed in range(80):
        batch = situations(make_batch(96, seed), generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(batch), batch.monitor_label).backward()
        optimizer.step()
    unseen = situations(make_batch(300, 1000), generator)
    assert (logits(unseen).argmax(dim=-1) == unseen.monitor_label).float().mean() > 0.95
