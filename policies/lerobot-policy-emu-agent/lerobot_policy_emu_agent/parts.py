"""The parts of an agent, built from what its checkpoint says of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emu_policies import ActionHead, ActionHeadConfig, Normalizer
from emu_policies.confidence.trust import PART, TrustConfig, TrustScore
from emu_policies.head.head_config import action_limit
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from emu_agent.decoding.noise import DidaConfig
from emu_agent.errors import CheckpointError, EmuAgentError
from emu_agent.imagination.engine import ImaginationEngine
from emu_agent.imagination.imagination import ImaginationConfig
from emu_agent.tokens.action import ActionBins
from emu_agent.tokens.image import ImageTokenizer, ImageTokenizerConfig
from emu_agent.tokens.sequence import SequenceFormat
from emu_agent.tokens.text import BytePairTokenizer
from emu_agent.tokens.vocabulary import Vocabulary
from emu_agent.world_model.checkpoint import load_state, read_config, read_part
from emu_agent.world_model.config import TransformerConfig
from emu_agent.world_model.transformer import WorldModel
from lerobot_policy_emu_agent.configuration_emu_agent import TEXT_TOKENIZER, agent_folder

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
            built[PART] = TrustScore(TrustConfig.from_dict(parts[PART]))
    for name, tensors in _stored(config, list(built)).items():
        load_state(built[name], tensors, str(config.pretrained_agent))
    if config.new_head:  # what was said of the old one, such as how far to trust it, does not hold for it
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
    return ImaginationEngine(
        image_tokenizer,
        SequenceFormat(
            Vocabulary.from_dict(agent["vocabulary"]), BytePairTokenizer.from_json(agent[TEXT_TOKENIZER])
        ),
        world_model,
        ActionBins.from_dict(agent["action_bins"]) if "action_bins" in agent else None,
        ImaginationConfig(decoder=config.decoder, passes=config.passes),
        dida=DidaConfig.from_dict(agent["dida"]) if "dida" in agent else None,
    )


def _stored(config: "EmuAgentConfig", names: list[str]) -> dict[str, dict[str, Tensor]]:
    try:
        folder = agent_folder(config.pretrained_agent)
        values = read_config(folder)["parts"]
    except (CheckpointError, KeyError):
        return {}
    if any(values.get(name) != config.agent["parts"][name] for name in names):
        return {}
    return {name: read_part(folder, name)[1] for name in names}


def _new_head(config: "EmuAgentConfig", statistics: Statistics) -> ActionHead:
    parts = config.agent["parts"]
    tokenizer = ImageTokenizerConfig.from_dict(parts["image_tokenizer"])
    height, width = config.agent.get("image_size", (tokenizer.resolution, tokenizer.resolution))
    state, action = config.robot_state_feature, config.action_feature
    if state is None or action is None or height != width:
        raise EmuAgentError(
            f"a new head needs {OBS_STATE}, {ACTION} and square pictures; the checkpoint's are "
            f"{height} x {width}"
        )
    actions = statistics.get(ACTION)
    values = {
        **parts.get("head", {}),
        "camera": config.agent.get("camera", "agentview"),
        "feature_dim": parts["world_model"]["hidden_size"],
        "grid_rows": height // tokenizer.downsampling,
        "grid_cols": width // tokenizer.downsampling,
        "wrist_size": height,
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
