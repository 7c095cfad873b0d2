"""The parts of an agent, built from what its checkpoint says of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emu_policies import ActionHead, ActionHeadConfig, Normalizer
from emu_policies.confidence.confidence_score import PART, ConfidenceConfig, ConfidenceScore
from emu_policies.head.head_config import action_limit
from emu_policies.head.loading import choose_head, head_parts
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from emu_agent.errors import CheckpointError, EmuAgentError
from emu_agent.fingerprint import embodiment_of
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.observation import IMAGE_PREFIX
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.world_model.checkpoint import load_state, read_config, read_part
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.transformer import WorldModel
from lerobot_policy_emu_agent.configuration_emu_agent import TEXT_TOKENIZER, agent_folder
from lerobot_policy_emu_agent.features import image_size

if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig

Statistics = Mapping[str, Mapping[str, Any]]
"""LeRobot's statistics of a dataset, by feature."""


def build_parts(config: "EmuAgentConfig", statistics: Statistics | None) -> dict[str, nn.Module]:
    """Image tokenizer, world model and head by the names that they have in a checkpoint.

    The weights are those of `pretrained_agent`. If that folder is gone or holds another agent, as after a
    move of what LeRobot has saved, LeRobot brings them.
    """
    parts = config.agent["parts"]
    built: dict[str, nn.Module] = {
        "image_tokenizer": ImageTokenizer(ImageTokenizerConfig.from_dict(parts["image_tokenizer"])),
        "world_model": WorldModel(TransformerConfig.from_dict(parts["world_model"])),
    }
    if not config.new_head:
        built["head"] = ActionHead(ActionHeadConfig.from_dict(parts["head"]))
        if PART in parts:
            built[PART] = ConfidenceScore(ConfidenceConfig.from_dict(parts[PART]))
    for name, tensors in _stored(config, list(built)).items():
        load_state(built[name], tensors, str(config.pretrained_agent))
    if config.new_head:  # what was said of the old one, such as how sure it is, does not hold for it
        head = built["head"] = _new_head(config, statistics or {})
        kept = {name: parts[name] for name in ("image_tokenizer", "world_model")}
        config.agent = {**config.agent, "parts": {**kept, "head": head.config.to_dict()}}
        config.new_head = False
    return built


def build_engine(config: "EmuAgentConfig", parts: Mapping[str, nn.Module]) -> ImaginationEngine:
    """Put image tokenizer and world model together to imagine."""
    agent = config.agent
    image_tokenizer, world_model = parts["image_tokenizer"], parts["world_model"]
    assert isinstance(image_tokenizer, ImageTokenizer)
    assert isinstance(world_model, WorldModel)
    imagining = ImaginationConfig(decoder=config.decoder, passes=config.passes)
    text = BytePairTokenizer.from_json(agent[TEXT_TOKENIZER])
    return ImaginationEngine.from_parts(agent, image_tokenizer, text, world_model, imagining)


def _stored(config: "EmuAgentConfig", names: list[str]) -> dict[str, dict[str, Tensor]]:
    try:
        folder = agent_folder(config.pretrained_agent)
        meta = read_config(folder)
        heads, values = head_parts(meta), meta["parts"]
        stored = {name: name for name in names}
        if "head" in names:
            stored["head"] = heads[
                choose_head(heads, config.embodiment, embodiment_of(meta.get("fingerprint")))
            ]
    except (CheckpointError, KeyError):
        return {}
    if any(values.get(part) != config.agent["parts"][name] for name, part in stored.items()):
        return {}
    return {name: read_part(folder, part)[1] for name, part in stored.items()}


def _new_head(config: "EmuAgentConfig", statistics: Statistics) -> ActionHead:
    parts = config.agent["parts"]
    tokenizer = ImageTokenizerConfig.from_dict(parts["image_tokenizer"])
    height, width = image_size(config)
    state, action = config.robot_state_feature, config.action_feature
    if state is None or action is None:
        raise EmuAgentError(f"a new head needs the features {OBS_STATE} and {ACTION}")
    actions = statistics.get(ACTION)
    values = {
        **ActionHeadConfig.from_dict(parts.get("head", {})).to_dict(),
        "cameras": [key.removeprefix(IMAGE_PREFIX) for key in config.camera_keys or ()],
        "camera": config.agent.get("camera", "agentview"),
        "feature_dim": parts["world_model"]["hidden_size"],
        "grid_rows": height // tokenizer.downsampling,
        "grid_cols": width // tokenizer.downsampling,
        "camera_size": [height, width],
        "fit": config.agent.get("fit", "resize"),
        "proprio_dim": state.shape[0],
        "action_dim": action.shape[0],
        "chunk_size": config.chunk_size,
        "action_limit": None if actions is None else action_limit(actions["min"], actions["max"]),
    }
    return ActionHead(
        ActionHeadConfig.from_dict(values),
        None if actions is None else Normalizer.from_statistics(actions),
        Normalizer.from_statistics(statistics[OBS_STATE]) if OBS_STATE in statistics else None,
    )
