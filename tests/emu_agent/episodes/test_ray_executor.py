"""A cluster of two nodes on this machine, by Ray's own test utility."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from emu_agent.episodes.executors import Job, open_executor
from emu_agent.errors import ConfigError, EmuAgentError

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")
TOYS = Path(__file__).parents[1] / "toys"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(TOYS), prepend=":")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_job_is_done_though_a_worker_and_a_node_die(
    cluster: Any, toy_work: ModuleType, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    jobs = [Job("diesonce", 0), *(Job(f"slow/{letter}", seed) for letter in "ab" for seed in range(8))]
    with open_executor(
        "ray", toy_work.ToyWork(str(tmp_path)), workers=5, job_timeout_s=120.0, address=cluster.address
    ) as executor:
        assert executor.workers == 2  # as many as the cluster has cores
        outcomes = []
        for outcome in executor.run(jobs):
            outcomes.append(outcome)
            if len(outcomes) == 4:
                cluster.remove_node(node, allow_graceful=False)
        assert {(one.job, one.value and one.value[1]) for one in outcomes} == {
            (job, (job.seed or 0) ** 2) for job in jobs
        }
        assert len(outcomes) == len(jobs)
        with pytest.raises(ConfigError, match="the wall must be blue"):
            list(executor.run([Job("wrong", 1)]))


def test_an_address_that_nobody_answers_is_refused_in_seconds(toy_work: ModuleType) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens
        started = time.monotonic()
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            with pytest.raises(EmuAgentError, match=rf"no Ray cluster answers at {address}"):
                open_executor("ray", toy_work.ToyWork(""), workers=1, address=address)
        assert time.monotonic() - started < 30
    with pytest.raises(ConfigError, match="a Ray address looks like host:6379"):
        open_executor("ray", toy_work.ToyWork(""), workers=1, address="somewhere")
