"""LeRobot's features and batches as an agent wants them, and whether they are what it was trained with."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emu_policies import ActionHeadConfig
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.utils.constants import ACTION, OBS_STATE
from lerobot.utils.feature_utils import dataset_to_policy_features

from emu_agent.data.columns import read_side_file
from emu_agent.errors import ConfigError, FingerprintError
from emu_agent.observation import IMAGE_PREFIX, Observation

if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig
if TYPE_CHECKING:
    from lerobot_policy_emu_agent.configuration_emu_agent import EmuAgentConfig


UNIT_RATIO = 10.0
"""How much wider or narrower an entry of a dataset may be than what the head was trained with."""

STILL = 1e-6
"""Spread below which an entry does not move."""

Shape = tuple[int, ...] | None
"""Entries of a vector; None is a picture, which is brought to size."""


def image_size(config: "EmuAgentConfig") -> tuple[int, int]:
    """Height and width of the images that the agent imagines."""
    parts = config.agent["parts"]
    side = parts.get("head", {}).get("wrist_size", parts["image_tokenizer"].get("resolution"))
    height, width = config.agent.get("image_size", (side, side))
    return int(height), int(width)


def wanted_features(config: "EmuAgentConfig") -> dict[str, Shape]:
    """What the policy reads and writes, by name; vectors of a new head may have any length."""
    assert config.camera_key is not None
    assert config.camera_keys is not None
    wanted: dict[str, Shape] = dict.fromkeys([config.camera_key, *needed_cameras(config)])
    if not config.new_head:
        head = config.agent["parts"]["head"]
        wanted |= {OBS_STATE: (head["proprio_dim"],), ACTION: (head["action_dim"],)}
    return wanted


def needed_cameras(config: "EmuAgentConfig") -> list[str]:
    """Features with images for the head; none that it was trained to do without."""
    head = config.agent["parts"].get("head", {})
    return [] if head.get("camera_dropout") and not config.new_head else list(config.camera_keys or ())


def own_features(config: "EmuAgentConfig") -> dict[str, PolicyFeature]:
    """The features of an agent with a head, for a policy that is used without dataset or environment."""
    side = image_size(config)
    return {
        name: PolicyFeature(FeatureType.VISUAL, (3, *side))
        if shape is None
        else PolicyFeature(FeatureType.ACTION if name == ACTION else FeatureType.STATE, shape)
        for name, shape in wanted_features(config).items()
    }


def use_features(config: "EmuAgentConfig", features: Mapping[str, Any]) -> None:
    """Take over the features of a dataset that the policy reads and writes; all if one of them is missing."""
    offered = dataset_to_policy_features(dict(features))
    wanted = {**wanted_features(config), OBS_STATE: None, ACTION: None}
    wanted |= dict.fromkeys(key for key in config.camera_keys or () if key in offered)
    if set(wanted) <= set(offered):
        offered = {name: feature for name, feature in offered.items() if name in wanted}
    config.output_features = {name: f for name, f in offered.items() if name == ACTION}
    config.input_features = {name: f for name, f in offered.items() if name not in config.output_features}


def refuse_other_features(config: "EmuAgentConfig") -> None:
    """Compare what there is with what the policy needs.

    Raises:
        ConfigError: Something is missing or has another length.
    """
    offered = {**(config.input_features or {}), **(config.output_features or {})}
    wanted = wanted_features(config)
    bad = [
        name
        for name, shape in wanted.items()
        if name not in offered or (shape is not None and tuple(offered[name].shape) != shape)
    ]
    vectors = [name for name in (OBS_STATE, ACTION) if name not in offered]
    if bad or vectors:
        raise ConfigError(_side_by_side(wanted, offered))


def _side_by_side(wanted: Mapping[str, Shape], offered: Mapping[str, PolicyFeature]) -> str:
    wanted = {OBS_STATE: (), ACTION: (), **wanted}
    lines = ["the features do not fit the checkpoint:", f"  {'the policy needs':<42} there is"]
    for name, shape in sorted(wanted.items()):
        need = f"{name} {'picture' if shape is None else list(shape) or 'of any length'}"
        have = f"{name} {list(offered[name].shape)}" if name in offered else "-"
        lines.append(f"  {need:<42} {have}")
    spare = {name: feature for name, feature in offered.items() if name not in wanted}
    lines += [f"  {'-':<42} {name} {list(feature.shape)}" for name, feature in sorted(spare.items())]
    pictures = [name for name, feature in spare.items() if feature.type is FeatureType.VISUAL]
    missing = [name for name, shape in wanted.items() if shape is None and name not in offered]
    if mapping := _guess(missing, pictures):
        renames = ", ".join(f'"{there}": "{here}"' for here, there in mapping.items())
        lines.append(f"perhaps these are the same: --rename_map='{{{renames}}}'")
    lines.append(
        "in training, name the images by --policy.camera_key and --policy.camera_keys (both may be the "
        "same); for vectors of other lengths begin with --policy.new_head=true"
    )
    return "\n".join(lines)


def _guess(missing: list[str], pictures: list[str]) -> dict[str, str]:
    """Which picture that there is might be meant by each that is missing."""
    left, found = list(pictures), {}
    for name in missing:
        if nearest := get_close_matches(name, left, n=1, cutoff=0.85):
            found[name] = nearest[0]
            left.remove(nearest[0])
    for name in missing:
        if name not in found and left:
            found[name] = left.pop(0)
    return found


def origin_of(meta: Any) -> dict[str, Any]:
    """What an agent keeps of the dataset that its head is trained on: the environment and the rate."""
    side = read_side_file(Path(meta.root))
    return {"fingerprint": side.get("fingerprint"), "control_hz": float(meta.fps)}


def refuse_other_rate(agent: Mapping[str, Any], fps: float) -> None:
    """Compare the rate of a dataset with that of the data that the head was trained with.

    Raises:
        FingerprintError: They differ.
    """
    rate = agent.get("control_hz", (agent.get("fingerprint") or {}).get("control_hz"))
    if rate is not None and fps != rate:
        raise FingerprintError(
            f"the dataset has {fps:g} frames per second, but the checkpoint's head was trained with "
            f"{rate:g}: its chunks would be carried out at the wrong speed; record with that rate, or begin "
            "with --policy.new_head=true"
        )


def refuse_other_units(
    name: str, mean: list[float], std: list[float], statistics: Mapping[str, Any], names: list[str] | None
) -> None:
    """Compare the spread of a vector with the one that the head was trained with.

    Entries that reach far beyond the head's are named; if most of them spread far less, all are.

    Args:
        name: The feature.
        mean: Its mean in the head's training.
        std: Its spread there.
        statistics: The entry of the dataset's statistics.
        names: Names of its entries, if the dataset has them.

    Raises:
        ConfigError: Entries that look as if they had another unit; the message names them.
    """
    low, high, spreads = ([float(x) for x in statistics[key]] for key in ("min", "max", "std"))
    # Entries that never move, those of an idle arm or that fill up a vector, tell nothing of units.
    moving = [(there, here) for there, here in zip(std, spreads, strict=True) if here > STILL]
    narrower = sorted(there / here for there, here in moving)
    all_narrow = bool(narrower) and narrower[len(narrower) // 2] > UNIT_RATIO
    lines = []
    for i, (centre, spread) in enumerate(zip(mean, std, strict=True)):
        reach = max(abs(low[i] - centre), abs(high[i] - centre))
        if all_narrow or reach > UNIT_RATIO * max(3.0 * spread, 0.1):
            label = names[i] if names and len(names) == len(mean) else f"{name}[{i}]"
            lines.append(
                f"  {label}: {low[i]:.3g} to {high[i]:.3g} here, about {centre - 3 * spread:.3g} to "
                f"{centre + 3 * spread:.3g} in the checkpoint's data"
            )
    if lines:
        raise ConfigError(
            f"{name} seems to have other units than in the checkpoint's data (degrees and radians, percent "
            "and fractions?):\n" + "\n".join(lines) + "\nconvert the dataset, or begin with "
            "--policy.new_head=true"
        )


def observation_of(batch: Mapping[str, Any], config: "EmuAgentConfig", head: ActionHeadConfig) -> Observation:
    """The observation of a batch, with the cameras called as the agent calls them.

    Raises:
        ConfigError: The batch lacks a picture or the proprioception; the message lists what it has.
    """
    assert config.camera_key is not None
    assert config.camera_keys is not None
    if missing := sorted({config.camera_key, *needed_cameras(config), OBS_STATE} - set(batch)):
        there = sorted(key for key in batch if key.startswith("observation."))
        raise ConfigError(
            f"the policy needs {missing}, and the observation has {there}; --rename_map="
            f'\'{{"{there[0] if there else "there"}": "{missing[0]}"}}\' gives one the other\'s name'
        )
    keys = {**dict(zip(head.cameras, config.camera_keys, strict=True)), head.camera: config.camera_key}
    return Observation.from_lerobot({
        **{IMAGE_PREFIX + camera: batch[key] for camera, key in keys.items() if key in batch},
        OBS_STATE: batch[OBS_STATE],
        "task": batch.get("task") or [""] * len(batch[OBS_STATE]),
    })  # fmt: skip


def rows_of(observation: Observation) -> list[Observation]:
    """One observation for each robot."""
    return [
        replace(
            observation,
            images={camera: images[i : i + 1] for camera, images in observation.images.items()},
            proprio=observation.proprio[i : i + 1],
            instruction=observation.instruction[i : i + 1],
        )
        for i in range(observation.batch_size)
    ]
