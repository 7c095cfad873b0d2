"""LeRobot's TD-MPC as a scored model: latent dynamics of another make, given eyes by looking up.

TD-MPC (arXiv 2203.04955, in the form of 2310.16029) predicts latent states and draws no pictures. A predicted
state is shown as the frame of the training episodes whose own latent state is nearest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from emu_agent.data.frames import Frames, load_frames
from emu_agent.errors import CheckpointError, DatasetError
from emu_agent.evaluation.adapters.protocol import Abilities, Future, Start
from emu_agent.world_model.checkpoint import modules_digest

if TYPE_CHECKING:
    from lerobot.policies.tdmpc.modeling_tdmpc import TDMPCPolicy

BATCH = 256


class TdmpcAdapter:
    """Latent dynamics that show what they predict as the nearest frame of the training episodes.

    Args:
        policy: A trained TD-MPC whose only observation is one camera.
        frames: The dataset that it was trained on.
        camera: The camera that is imagined.
        episodes: Those that frames are looked up in: the training part.
    """

    name = "tdmpc"

    def __init__(self, policy: "TDMPCPolicy", frames: Frames, camera: str, episodes: Sequence[int]) -> None:
        self._model: Any = policy.eval().model
        (self._key, feature), *_ = policy.config.image_features.items()
        self._side = int(feature.shape[-1])
        self._pictures, self._rows = frames.images[camera], frames.rows(episodes)
        parts = [self._rows[begin : begin + BATCH] for begin in range(0, len(self._rows), BATCH)]
        self._states = torch.cat([self._encode(self._pictures[part]) for part in parts])
        height, width = self._pictures.shape[1:3]
        self.abilities = Abilities(
            simulate=True, action_dim=frames.executed.shape[1], picture_size=(height, width)
        )

    @classmethod
    def from_pretrained(cls, weights: str, dataset: str, camera: str, held_out: float) -> "TdmpcAdapter":
        """A folder that `benchmarks/train_tdmpc.py` has written, and the dataset that it was trained on.

        Raises:
            CheckpointError: there is no such folder.
            DatasetError: the dataset is missing.
        """
        folder = Path(weights)
        if not (folder / "model.safetensors").is_file():
            raise CheckpointError(
                f"no TD-MPC in {folder}; `python benchmarks/train_tdmpc.py` trains one in three minutes"
            )
        from lerobot.policies.tdmpc.modeling_tdmpc import TDMPCPolicy

        frames = load_frames(Path(dataset), [camera])
        if not len(frames):
            raise DatasetError(f"{dataset} has no frames to show predictions by")
        policy = TDMPCPolicy.from_pretrained(str(folder), local_files_only=True)
        return cls(policy, frames, camera, frames.split(held_out)[0])

    def digest(self) -> str:
        """Of the weights."""
        return modules_digest(self._model)

    def encode(self, start: Start) -> Float[Tensor, "batch latent"]:
        """The present as latent states."""
        return self._encode(start.pictures)

    @torch.inference_mode()
    def predict(
        self,
        context: Float[Tensor, "batch latent"],
        steps: int,
        actions: Float32[np.ndarray, "batch time action_dim"] | None = None,
    ) -> Future:
        """Follow the dynamics action by action, and look up the state after each step."""
        if actions is None:
            raise ValueError("TD-MPC predicts what actions lead to; give actions")
        state, drawn = context, []
        for chunk in np.split(actions, steps, axis=1):
            for action in torch.from_numpy(chunk.clip(-1, 1)).unbind(1):
                state = self._model.latent_dynamics(state, action)
            nearest = torch.cdist(state, self._states).argmin(dim=1).numpy()
            drawn.append(self._pictures[self._rows[nearest]])
        return Future(pictures=np.stack(drawn, axis=1))

    @torch.inference_mode()
    def _encode(self, pictures: UInt8[np.ndarray, "batch height width 3"]) -> Float[Tensor, "batch latent"]:
        parts = [pictures[begin : begin + BATCH] for begin in range(0, len(pictures), BATCH)]
        return torch.cat([self._model.encode({self._key: as_input(part, self._side)}) for part in parts])


def as_input(
    pictures: UInt8[np.ndarray, "batch height width 3"], side: int
) -> Float[Tensor, "batch 3 side side"]:
    """Pictures as TD-MPC takes them: small, colours from 0 to 1, channels first."""
    small = [cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in pictures]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
