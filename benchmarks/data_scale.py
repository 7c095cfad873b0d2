"""Opening time and peak memory of training on a large dataset, on a synthetic one that is cached already.

    python benchmarks/data_scale.py --frames 300000

The dataset is a real LeRobotDataset v3 in its tables, and its cache holds images that were never drawn: a
sparse file, which costs no disk. Opening it reads its description, checks that it is the one that was cached
and maps the arrays. Then the world model's stage is made as in training, and batches are drawn and learned
from.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from emu_agent.data.codes import codes_file
from emu_agent.data.columns import ACTION, IMAGES, STATE
from emu_agent.data.frames import load_frames
from emu_agent.provenance import provenance
from emu_agent.run_folder import write_json
from emu_agent.training.world_model_stage import WorldModelStage
from emu_agent.world_model.checkpoint import bundled_checkpoint, read_config
from emu_agent.world_model.tokenizers import load_image_tokenizer

CAMERA, LENGTH = "agentview", 60
GIB = 2**30


def main() -> None:
    """Build, open, train, and store the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=300_000)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, help="where the dataset is built; a temporary folder if left out"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/data_scale.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(folder) / "large"
        meta = read_config(bundled_checkpoint())
        side = int(meta["image_size"][0])
        build(root, args.frames // LENGTH, side)
        begin = time.perf_counter()
        frames = load_frames(root, [CAMERA])
        opening = time.perf_counter() - begin
        figures = train(root, meta, args.batches)
        write_json(
            args.output,
            {
                "frames": len(frames), "episodes": frames.num_episodes, "image_size": side,
                "cache_gib": sum(p.stat().st_size for p in frames.cache.rglob("*")) / GIB,
                "opening_s": round(opening, 2), **figures, **provenance(),
            },
        )  # fmt: skip
    print(args.output.read_text())


def train(root: Path, meta: dict, batches: int) -> dict[str, float]:
    """Make the world model's stage and learn from some batches; returns times and the peak of memory."""
    rng, begin = np.random.default_rng(0), time.perf_counter()
    stage = WorldModelStage(
        meta["parts"]["world_model"], str(bundled_checkpoint()), str(root), CAMERA, batch_size=16
    )
    made = time.perf_counter() - begin
    model = stage.build()
    begin = time.perf_counter()
    for _ in range(batches):
        stage.step(model, rng).loss.backward()
    return {
        "stage_s": round(made, 2),
        "plans": len(stage.plans),
        "batches": batches,
        "s_per_batch": round((time.perf_counter() - begin) / batches, 3),
        "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB, 2),
    }


def build(root: Path, episodes: int, side: int) -> None:
    """Write the tables as lerobot does, and a cache of them."""
    rng, total = np.random.default_rng(0), episodes * LENGTH
    (root / "data" / "chunk-000").mkdir(parents=True)
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    vector = {"dtype": "float32", "names": None}
    features = {
        IMAGES + CAMERA: {
            "dtype": "image",
            "shape": [side, side, 3],
            "names": ["height", "width", "channels"],
        },
        STATE: {**vector, "shape": [9]},
        ACTION: {**vector, "shape": [7]},
    }
    info = {"codebase_version": "v3.0", "fps": 20, "features": features, "total_frames": total}
    (root / "meta" / "info.json").write_text(json.dumps(info))
    index = {"episode_index": np.arange(episodes), "length": np.full(episodes, LENGTH)}
    pq.write_table(pa.table(index), root / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    tasks = pa.table({"task_index": [0], "task": ["lift the cube"]})
    pq.write_table(tasks, root / "meta" / "tasks.parquet")
    numbers = {
        name: rng.uniform(-1, 1, (total, size)).astype(np.float32) for name, size in ((STATE, 9), (ACTION, 7))
    }
    numbers[ACTION][:, -1] = 1  # the gripper stays: episodes are cut by time
    columns = {name: pa.FixedSizeListArray.from_arrays(v.ravel(), v.shape[1]) for name, v in numbers.items()}
    bare = {
        "timestamp": np.tile(np.arange(LENGTH, dtype=np.float32) / 20, episodes),
        "episode_index": np.repeat(np.arange(episodes), LENGTH),
        "task_index": np.zeros(total, np.int64),
        IMAGES + CAMERA: pa.array([{"bytes": b"", "path": None}] * total),
    }
    pq.write_table(pa.table({**columns, **bare}), root / "data" / "chunk-000" / "file-000.parquet")
    fill_cache(root, episodes, side)


def fill_cache(root: Path, episodes: int, side: int) -> None:
    """What opening the dataset once would leave, with images that were never drawn."""
    from emu_agent.data import frame_cache

    def blank(folder: object, camera: object, path: Path, *rest: object) -> None:
        np.lib.format.open_memmap(path, "w+", np.uint8, (episodes * LENGTH, side, side, 3)).flush()

    drawn, frame_cache._fill_images = frame_cache._fill_images, blank  # nothing to decode
    try:
        load_frames(root, [CAMERA])
    finally:
        frame_cache._fill_images = drawn
    frames, tokenizer = load_frames(root, [CAMERA]), load_image_tokenizer(bundled_checkpoint())
    codes = np.random.default_rng(1).integers(
        tokenizer.num_codes, size=(len(frames), *tokenizer.grid(side, side))
    )
    np.save(codes_file(frames, CAMERA, tokenizer), codes)


if __name__ == "__main__":
    main()
