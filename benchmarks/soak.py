"""Does the control loop stay punctual and flat in memory, over half an hour?

Run `python benchmarks/soak.py runs/so101_pick/head/checkpoint`. `emu-agent serve` runs the policy in a
process of its own; the simulated SO-101 runs in real time in this one, with the gate, the client and the loop
that a real arm would have. Scenes follow on each other; the policy goes on.

A third process does nothing but wake up at the same rate: where the machine itself is late, above all one
whose cores are lent to others at times, the loop cannot make up for it.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from emu_policies.serving import RemotePolicy, run_control_loop
from emu_policies.serving.loop import LoopReport
from lerobot_env_emu_agent import EmuSimArm, EmuSimArmConfig
from lerobot_policy_emu_agent.robot_client import ServedRobot

from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json

TASK = "put the red cube on the blue marker"
PUNCTUAL_MS = 5.0
"""An action sent later than so long after its period began, rendering aside, counts as late."""
PERIOD_S = 0.05
PAGE = os.sysconf("SC_PAGE_SIZE")


class Memory:
    """Resident memory of processes, noted at fixed intervals from a thread.

    Args:
        pids: processes by name.
        every_s: seconds between two looks.
    """

    def __init__(self, pids: dict[str, int], every_s: float) -> None:
        self._pids, self._every_s = pids, every_s
        self._over = threading.Event()
        self.mib: dict[str, list[float]] = {name: [] for name in pids}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def growth(self, warm_up_s: float) -> dict[str, Any]:
        """Of each process: means of the first and the last tenth of the looks after the warm-up [MiB]."""
        first = round(warm_up_s / self._every_s)
        found = {}
        for name, every in self.mib.items():
            looks = np.array(every[first:])
            tenth = max(1, len(looks) // 10)
            begin, end = float(looks[:tenth].mean()), float(looks[-tenth:].mean())
            found[name] = {"begin_mib": begin, "end_mib": end, "growth": end / begin - 1, "looks": len(looks)}
        return found

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            for name, pid in self._pids.items():
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                self.mib[name].append(pages * PAGE / 2**20)


@contextmanager
def serving(checkpoint: Path, settings: list[str]) -> Iterator[tuple[int, int]]:
    """A policy server in a process of its own: its process id and its port."""
    # The server has time, the loop has not: where both share the cores, the loop goes first.
    command = ["nice", "-n", "10", sys.executable, "-m", "emu_agent", "serve"]
    command += [f"checkpoint={checkpoint}", "port=0", *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("serving on ")), None)
        if line is None:
            raise SystemExit(f"the server has ended with {process.wait()}: {' '.join(command)}")
        yield process.pid, int(line.split()[2].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


def wake_up(seconds: float, period_s: float, late_ms: "multiprocessing.Queue[list[float]]") -> None:
    """Wake up once per period, and say by how much too late."""
    begun, late = time.monotonic(), []
    for number in range(round(seconds / period_s)):
        time.sleep(max(0.0, begun + number * period_s - time.monotonic()))
        late.append(1000 * (time.monotonic() - begun - number * period_s))
    late_ms.put(late)


@contextmanager
def idle_loop(seconds: float, period_s: float) -> Iterator["multiprocessing.Queue[list[float]]"]:
    """`wake_up` in a process of its own; what it has seen is in the queue at the end."""
    context = multiprocessing.get_context("spawn")
    late_ms: multiprocessing.Queue[list[float]] = context.Queue()
    process = context.Process(target=wake_up, args=(seconds, period_s, late_ms), daemon=True)
    process.start()
    try:
        yield late_ms
    finally:
        process.terminate()
        process.join()


@contextmanager
def realtime(priority: int) -> Iterator[None]:
    """Threads and processes started in here go before others, as by `chrt -r`; 0 leaves them as they are."""
    if not priority:
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    except PermissionError:
        raise SystemExit(f"--realtime {priority} needs root, or an rtprio limit of as much") from None
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def stolen_s() -> float:
    """Time that a host has given to others while this machine's cores were to run, since it started."""
    cores = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(cores[8]) / os.sysconf("SC_CLK_TCK")


def soak(port: int, warm_up_s: float, seconds: float) -> tuple[LoopReport, Counter[str], Counter[str]]:
    """Run the loop, first to warm up; its report then, and what client and gate have counted since."""
    arm = EmuSimArm(EmuSimArmConfig(id="soak", episode_s=15.0, seed=100_000))
    arm.connect()
    policy = RemotePolicy.connect(address=f"127.0.0.1:{port}", realtime=True, hold="position")
    try:
        policy.reset(0)
        robot = ServedRobot(arm, TASK)
        robot.observe()  # the first picture takes long
        run_control_loop(robot, policy, robot.gate, seconds=warm_up_s)
        client, gate = Counter(policy.counts), Counter(arm.gate.log.counts)
        report = run_control_loop(robot, policy, robot.gate, seconds=seconds)
        return report, Counter(policy.counts) - client, Counter(arm.gate.log.counts) - gate
    finally:
        policy.close()
        arm.disconnect()


def figures_of(report: LoopReport, client: Counter[str], gate: Counter[str]) -> dict[str, Any]:
    """What is stored of a run."""
    late = np.array(report.late_ms) - np.array(report.observing_ms)
    return {
        "periods": report.periods,
        "missed_periods": report.missed,
        **punctuality(late),
        "observing_ms": {"p50": float(np.median(report.observing_ms)), "max": max(report.observing_ms)},
        "missed_heartbeats": client["hold_lost"],
        "client": dict(sorted(client.items())),
        "gate": dict(sorted(gate.items())),
    }


def punctuality(late_ms: np.ndarray) -> dict[str, Any]:
    """Share of the periods in time, over all and in each of ten equal parts, and how late they were."""
    p50, p99 = np.percentile(late_ms, [50, 99])
    in_time = late_ms <= PUNCTUAL_MS
    return {
        "punctual": float(in_time.mean()),
        "punctual_by_tenth": [round(float(part.mean()), 4) for part in np.array_split(in_time, 10)],
        "late_ms": {"p50": float(p50), "p99": float(p99), "max": float(late_ms.max())},
    }


def main() -> None:
    """Soak, and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=120.0, help="seconds before anything counts")
    parser.add_argument(
        "--realtime",
        type=int,
        default=0,
        help="priority (2 to 99) before all else: of the robot's process, the server has one less",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/soak.json"))
    parser.add_argument("settings", nargs="*", help="of emu-agent serve")
    args = parser.parse_args()
    seconds, stolen_before = 60 * args.minutes, stolen_s()
    in_all = args.warm_up + seconds
    with (
        realtime(max(0, args.realtime - 1)),
        serving(args.checkpoint, args.settings) as (server, port),
        realtime(args.realtime),
        Memory({"robot": os.getpid(), "server": server}, every_s=5.0) as memory,
        idle_loop(in_all, PERIOD_S) as idle_late_ms,
    ):
        found = figures_of(*soak(port, args.warm_up, seconds))
        idle = punctuality(np.array(idle_late_ms.get(timeout=60.0)))
    stolen = (stolen_s() - stolen_before) / (in_all * (os.cpu_count() or 1))
    result = {"minutes": args.minutes, "realtime": args.realtime, **found}
    result |= {"memory": memory.growth(args.warm_up), "idle_loop": idle, "share_of_the_cores_stolen": stolen}
    print(result)
    write_json(args.output, {**result, "checkpoint": str(args.checkpoint), **provenance()})


if __name__ == "__main__":
    main()
