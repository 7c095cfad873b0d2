"""Fine-tuning of the published model, whole or by adapters, on the same sequences as stage 2.

Every published id keeps its meaning; actions take control tokens that the published format leaves unused.
What is written is a folder in the published layout and naming, ready to be loaded like the one it came from.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emu_agent.errors import CheckpointError, ConfigError
from emu_agent.official.assembly import SIDE_FILE, find_folders
from emu_agent.run_folder import write_json
from emu_agent.tokens.image import CONFIG_FILE as IMAGE_CONFIG_FILE
from emu_agent.tokens.image import NATIVE_FILE, SAFE_FILE, ImageTokenizer
from emu_agent.tokens.sequence import SequenceFormat
from emu_agent.tokens.text import RANKS_FILE, VISION_FILE, EmuTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.training.world_model_stage import WorldModelStage
from emu_agent.world_model.adapter import LoraSettings, add_adapter, merged_weight, save_adapter
from emu_agent.world_model.checkpoint import load_world_model, weights_digest
from emu_agent.world_model.folders import CONFIG_FILE, replacing_folder
from emu_agent.world_model.shards import read_json, stored_tensors, write_shards
from emu_agent.world_model.transformer import WorldModel

GENERATION_FILE = "generation_config.json"
ADAPTER_FOLDER = "adapter"
IMAGE_FOLDER = "image_tokenizer"
TORCH_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class OfficialStage(WorldModelStage):
    """Fine-tunes the language model of a folder of published weights.

    Args:
        weights: folder of the language model, with the tokenizers in it or beside it.
        lora: fields of `LoraSettings`, to train adapters only; None trains every weight.
        device: where training runs; weights that are not trained are kept there in 16 bits on a GPU.
        dataset: folder of a LeRobotDataset, or a mixture of them.
        camera: third-person camera that is imagined.
        settings: fields of `WorldModelStageConfig`.

    Raises:
        CheckpointError: a part is missing or damaged, or the parts do not belong together.
    """

    def __init__(
        self,
        weights: str,
        lora: Mapping[str, Any] | None,
        device: str,
        dataset: Any,
        camera: str,
        **settings: Any,
    ) -> None:
        parts = find_folders(weights)
        if parts.language_model is None or parts.image_tokenizer is None or parts.text_tokenizer is None:
            missing = [what.replace("_", " ") for what, where in vars(parts).items() if where is None]
            raise CheckpointError(
                f"{weights} has no {' and no '.join(missing)}, and there is none beside it; "
                f"`emu-agent doctor weights={weights}` says what there is"
            )
        self.language_model, self.text_folder = parts.language_model, parts.text_tokenizer
        self.lora = None if lora is None else LoraSettings.from_dict(lora)
        self.device = device
        config = read_json(self.language_model / CONFIG_FILE)
        super().__init__(config, str(parts.image_tokenizer), dataset, camera, **settings)

    def build(self) -> nn.Module:
        """Return the published model, with fresh adapters if these are what is trained."""
        dtype = torch.float32 if self.lora is None else None
        model = load_world_model(self.language_model, dtype, self.device, vocab_size=self.vocabulary.size)
        if self.lora is not None:
            vocabulary = self.vocabulary
            add_adapter(model, self.lora, (vocabulary.boa, vocabulary.eoa, *vocabulary.action))
        return model

    def save(self, model: nn.Module, folder: Path, training: dict[str, Any]) -> None:
        """Write a folder in the published layout; adapters are folded in, and kept by themselves as well."""
        assert isinstance(model, WorldModel)
        with replacing_folder(folder) as new:
            write_shards(new, self._published(model))
            for name in (CONFIG_FILE, GENERATION_FILE):
                if (self.language_model / name).is_file():
                    shutil.copyfile(self.language_model / name, new / name)
            for name in (RANKS_FILE, VISION_FILE):
                _link(self.text_folder / name, new / name)
            (new / IMAGE_FOLDER).mkdir()
            for name in (IMAGE_CONFIG_FILE, NATIVE_FILE, SAFE_FILE):
                if (self.source / name).is_file():
                    _link(self.source / name, new / IMAGE_FOLDER / name)
            if self.lora is not None:
                save_adapter(model, new / ADAPTER_FOLDER, self.language_model.absolute())
            write_json(new / SIDE_FILE, self._side(training))

    def _side(self, training: dict[str, Any]) -> dict[str, Any]:
        lora = None if self.lora is None else self.lora.to_dict()
        data = {**training, "data": asdict(self.config), "weights": str(self.language_model), "lora": lora}
        return {**self._sections(), "training": {self.name: data}}

    def _published(self, model: WorldModel) -> Iterator[tuple[str, Tensor]]:
        """Every weight by its published name, in the type it had."""
        for name, stored in stored_tensors(self.language_model).items():
            weight = merged_weight(model, name).to(TORCH_TYPES[stored.dtype])
            if not weight.isfinite().all():
                raise CheckpointError(
                    f"{name} holds numbers that {stored.dtype} cannot; look where training diverged"
                )
            yield name, weight

    def sources(self) -> dict[str, str]:
        """Return digests of the published weights and of the datasets."""
        return {**super().sources(), "weights": weights_digest(self.language_model)}

    def _read_base(self) -> dict[str, Any]:
        return {}  # published weights are made for any cameras and sizes

    def _load_image_tokenizer(self) -> ImageTokenizer:
        return super()._load_image_tokenizer().to(self.device)

    def _refuse_other_data(self) -> None:
        """Published weights are made for any pictures."""

    def _sequence_format(self) -> SequenceFormat:
        vocabulary = Vocabulary.official()
        if (found := self.image_tokenizer.num_codes) != len(vocabulary.visual):
            raise CheckpointError(
                f"the image tokenizer in {self.source} has {found} codes; the published vocabulary has "
                f"{len(vocabulary.visual)}"
            )
        if self.config.num_action_bins > len(vocabulary.action):
            raise ConfigError(
                f"num_action_bins={self.config.num_action_bins} must be at most {len(vocabulary.action)}: "
                "the published vocabulary has no more control tokens to spare"
            )
        return SequenceFormat(vocabulary, EmuTokenizer.from_folder(self.text_folder))


def _link(source: Path, target: Path) -> None:
    """A second name for a file that nobody changes; a copy where the file system cannot do that."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
