"""LeRobot's loop with both plug-ins and the bundled checkpoint, against `emu-agent run`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

pytestmark = pytest.mark.slow

SEED, STEPS = 100_000, 9  # three chunks and at least one imagination


@pytest.mark.timeout(600)
def test_the_actions_are_those_of_emu_agent_run_bit_for_bit() -> None:
    ours = [played_by_run(SEED + row) for row in range(2)]
    theirs = played_by_lerobot(SEED, rows=2)
    assert theirs.shape == (2, STEPS, 7)
    for row in range(2):
        assert np.array_equal(theirs[row], ours[row]), f"episode {SEED + row} is another one"
    assert not np.array_equal(ours[0], ours[1])


@pytest.mark.timeout(600)
def test_the_command_leaves_results_of_every_episode(tmp_path: Path) -> None:
    log = tmp_path / "episodes.jsonl"
    evaluate(tmp_path, f"--env.episode_log={log}", "--policy.imagine=never")
    info = json.loads((tmp_path / "out" / "eval_info.json").read_text())
    assert info["per_task"][0]["metrics"]["successes"] == [False, False]
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(record["seed"], record["steps"]) for record in records] == [(SEED, 3), (SEED + 1, 3)]
    assert len(list((tmp_path / "out" / "videos").rglob("*.mp4"))) == 2


@pytest.mark.timeout(600)
def test_another_render_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        evaluate(tmp_path, "--env.preset=lite")
    assert "the environment is not the one that this checkpoint was made for" in failure.value.stderr
    assert "render_preset" in failure.value.stderr


def evaluate(folder: Path, *arguments: str) -> None:
    """Two short episodes by the command."""
    command = [
        str(Path(sys.executable).with_name("lerobot-eval")), "--policy.type=emu_agent", "--policy.device=cpu",
        f"--policy.seed={SEED}", "--env.type=emu_robosuite", "--env.episode_length=3", f"--seed={SEED}",
        "--eval.n_episodes=2", "--eval.batch_size=1", f"--output_dir={folder / 'out'}", *arguments,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)


def played_by_run(seed: int) -> np.ndarray:
    """Actions of an episode, behind the gate, as `emu-agent run` plays it."""
    from emu_policies import GatedPolicy, ImaginationPolicy

    from emu_agent.episodes.rollout import StepRecord, run_episode

    class Actions(list[Any]):
        def record(self, step: StepRecord) -> None:
            if step.action is not None:
                self.append(step.action)

    env, actions = gymnasium.make("emu_envs:emu/robosuite/Lift"), Actions()
    policy = GatedPolicy.for_environment(ImaginationPolicy.from_pretrained(), env)
    run_episode(env, policy, seed, actions, max_steps=STEPS)
    env.close()
    return np.stack(actions)


def played_by_lerobot(seed: int, rows: int) -> np.ndarray:
    """Actions of the episodes of a batch by lerobot-eval's own loop, within the environment's bounds."""
    import lerobot_policy_emu_agent  # noqa: F401 - registers the policy
    from lerobot.envs.factory import make_env, make_env_pre_post_processors
    from lerobot.policies.factory import make_policy, make_policy_config, make_pre_post_processors
    from lerobot.scripts.lerobot_eval import rollout
    from lerobot_env_emu_agent import EmuRobosuiteEnvConfig

    env_config = EmuRobosuiteEnvConfig(episode_length=STEPS)
    env = make_env(env_config, rows)["emu_robosuite"][0]
    policy_config = make_policy_config("emu_agent", device="cpu", seed=seed)
    policy = make_policy(policy_config, env_cfg=env_config).eval()
    around = (
        *make_env_pre_post_processors(env_config, policy_config),
        *make_pre_post_processors(policy_config),
    )
    played = rollout(env, policy, *around, seeds=[seed + row for row in range(rows)])
    env.close()
    return np.clip(played["action"].numpy(), -1, 1)
