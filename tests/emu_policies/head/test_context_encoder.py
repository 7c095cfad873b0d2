import numpy as np
import torch
from emu_policies.head.context_encoder import CameraEncoder, num_camera_tokens, shift_randomly


def random_frames(rows: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, size, size, 3), dtype=torch.uint8, generator=generator)


def test_one_token_per_32_pixels() -> None:
    encoder = CameraEncoder(dim=24, num_tokens=16, random_shift=4).eval()
    assert encoder(random_frames(2, 128)).shape == (2, 16, 24)


def test_any_size_has_its_tokens() -> None:
    assert num_camera_tokens((120, 160)) == 4 * 5
    encoder = CameraEncoder(dim=24, num_tokens=num_camera_tokens((50, 33)), random_shift=0).eval()
    frames = torch.randint(0, 256, (2, 50, 33, 3), dtype=torch.uint8)
    assert encoder(frames).shape == (2, 4, 24)


def test_a_change_of_the_picture_is_seen_where_it_is() -> None:
    encoder = CameraEncoder(dim=24, num_tokens=16, random_shift=4).eval()
    frames = random_frames(1, 128)
    changed = frames.clone()
    changed[:, 100:, 100:] = 255
    change = (encoder(changed) - encoder(frames)).norm(dim=-1)[0]
    assert change.argmax() == 15


def test_shifted_frames_are_windows_of_the_padded_frame() -> None:
    frames = random_frames(6, 12)
    shifted = shift_randomly(frames, 2, torch.Generator().manual_seed(1))
    offsets = set()
    for frame, result in zip(frames.numpy(), shifted.numpy(), strict=True):
        padded = np.pad(frame, ((2, 2), (2, 2), (0, 0)), mode="edge")
        fits = [
            (row, col)
            for row in range(5)
            for col in range(5)
            if np.array_equal(padded[row : row + 12, col : col + 12], result)
        ]
        assert len(fits) == 1
        offsets.add(fits[0])
    assert len(offsets) > 1


def test_frames_are_shifted_in_training_only() -> None:
    encoder = CameraEncoder(dim=24, num_tokens=16, random_shift=4)
    frames = random_frames(1, 128)
    first, second = (encoder.train()(frames, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(encoder.eval()(frames), encoder(frames))
