"""Episodes written as others write them, each layout by hand and by its description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SIZE, ACTIONS = 16, 2


class Known(NamedTuple):
    """An episode of T steps: ``action[t]`` leads from ``image[t]`` to ``image[t + 1]`` and earns ``reward[t]``."""

    image: np.ndarray  # (T + 1, H, W, 3) uint8
    action: np.ndarray  # (T, A)
    reward: np.ndarray  # (T,)
    terminated: bool

    @property
    def steps(self) -> int:
        return len(self.action)


def known(lengths: tuple[int, ...] = (5, 3, 4), size: int = SIZE, scale: float = 1.0) -> list[Known]:
    """Episodes of noise; the second ends in a terminal state. Smooth pictures, so that a film of them is near."""
    rng = np.random.default_rng(0)
    made = []
    for number, steps in enumerate(lengths):
        shade = rng.integers(0, 256, (steps + 1, 2, 2, 3), dtype=np.uint8)
        image = shade.repeat(size // 2, 1).repeat(size // 2, 2)
        action = scale * rng.uniform(-1, 1, (steps, ACTIONS)).astype(np.float32)
        made.append(Known(image, action, rng.normal(size=steps).astype(np.float32), number == 1))
    return made


def _led(values: np.ndarray) -> np.ndarray:
    """Beside what they led to: (T + 1, ...), none at the beginning."""
    return np.concatenate([np.zeros_like(values[:1]), values])


def v_d4rl(path: Path, episodes: list[Known]) -> Path:
    path.mkdir(exist_ok=True)
    for number, episode in enumerate(episodes):
        ends = np.zeros(episode.steps + 1, bool)
        ends[-1] = True
        np.savez_compressed(
            path / f"20220101T{number:06d}-x-{episode.steps + 1}.npz",
            image=episode.image,
            action=_led(episode.action),
            reward=_led(episode.reward),
            discount=1.0 - (ends & episode.terminated),
            is_first=np.arange(episode.steps + 1) == 0,
            is_last=ends,
            is_terminal=ends & episode.terminated,
        )
    return path


def v_d4rl_hdf5(path: Path, episodes: list[Known]) -> Path:
    import h5py

    path.mkdir(exist_ok=True)
    columns: dict[str, list[Any]] = {name: [] for name in ("observation", "action", "reward", "discount", "step_type")}
    for episode in episodes:
        columns["observation"].append(episode.image.transpose(0, 3, 1, 2))
        columns["action"].append(_led(episode.action))
        columns["reward"].append(_led(episode.reward))
        columns["discount"].append([*[1.0] * episode.steps, float(not episode.terminated)])
        columns["step_type"].append([0.0, *[1.0] * (episode.steps - 1), 2.0])
    with h5py.File(path / "data.hdf5", "w") as file:
        for name, parts in columns.items():
            file.create_dataset(name, data=np.concatenate(parts), compression="gzip")
    return path


def hdf5(path: Path, episodes: list[Known]) -> Path:
    import h5py

    path = path.with_suffix(".h5")
    lengths = [episode.steps + 1 for episode in episodes]
    none = np.full((1, ACTIONS), np.nan, np.float32)
    columns = {
        "pixels": [episode.image for episode in episodes],
        "action": [np.concatenate([episode.action, none]) for episode in episodes],
        "reward": [np.concatenate([[np.nan], episode.reward]) for episode in episodes],
        "terminated": [np.arange(n) == (n - 1 if e.terminated else -1) for n, e in zip(lengths, episodes, strict=True)],
        "state": [np.zeros((n, 3)) for n in lengths],
    }
    with h5py.File(path, "w", libver="latest") as file:
        for name, parts in columns.items():
            file.create_dataset(name, data=np.concatenate(parts))
        file.create_dataset("ep_len", data=np.array(lengths, np.int32))
        file.create_dataset("ep_offset", data=np.cumsum([0, *lengths[:-1]]).astype(np.int64))
    return path


def minari(path: Path, episodes: list[Known]) -> Path:
    import h5py

    (path / "data").mkdir(parents=True, exist_ok=True)
    limit = max([1.0, *(float(np.ceil(np.abs(episode.action).max())) for episode in episodes)])
    low, high = [-limit] * ACTIONS, [limit] * ACTIONS
    space = {"type": "Box", "dtype": "float32", "shape": [ACTIONS], "low": low, "high": high}
    metadata = {"data_format": "hdf5", "total_episodes": len(episodes), "action_space": json.dumps(space)}
    (path / "data/metadata.json").write_text(json.dumps(metadata))
    with h5py.File(path / "data/main_data.hdf5", "w", track_order=True) as file:
        for number, episode in enumerate(episodes):
            group = file.create_group(f"episode_{number}")
            ends = np.arange(episode.steps) == episode.steps - 1
            group.create_dataset("observations", data=episode.image, chunks=True)
            group.create_dataset("actions", data=episode.action, chunks=True)
            group.create_dataset("rewards", data=episode.reward.astype(np.float64), chunks=True)
            group.create_dataset("terminations", data=ends & episode.terminated)
            group.create_dataset("truncations", data=ends & (not episode.terminated))
    return path


def _film(path: Path, images: list[np.ndarray], fps: int = 10) -> None:
    """Without loss in brightness, nearly so in colour."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"qp": "0"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def lerobot(path: Path, episodes: list[Known], rewards: bool = True) -> Path:
    """As many rows as images but one: the last image is not recorded, and its reward is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fps, camera = 10, "observation.images.top"
    template = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    features = {
        camera: {"dtype": "video", "shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": [ACTIONS]},
        "next.reward": {"dtype": "float32", "shape": [1]},
    }
    info = {"codebase_version": "v3.0", "fps": fps, "features": features, "total_episodes": len(episodes)}
    info |= {"data_path": f"data/{template}.parquet", "video_path": f"videos/{{video_key}}/{template}.mp4"}
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    (path / "meta/info.json").write_text(json.dumps(info))
    rows: list[dict[str, Any]] = []
    places, begin = [], 0
    for number, episode in enumerate(episodes):
        place = {"episode_index": number, "length": episode.steps, "data/chunk_index": 0, "data/file_index": 0}
        place |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": 0}
        places.append(place | {f"videos/{camera}/from_timestamp": begin / fps})
        begin += episode.steps
        for t in range(episode.steps):
            row = {"action": episode.action[t], "episode_index": number, "frame_index": t, "timestamp": t / fps}
            row |= {"next.reward": episode.reward[t]} if rewards else {}
            rows.append(row | {"next.terminated": episode.terminated and t == episode.steps - 1})
    pq.write_table(pa.Table.from_pylist(places), path / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path / "data/chunk-000/file-000.parquet")
    frames = [image for episode in episodes for image in episode.image[:-1]]
    _film(path / f"videos/{camera}/chunk-000/file-000.mp4", frames, fps)
    return path


def videos(path: Path, episodes: list[Known]) -> Path:
    for number, episode in enumerate(episodes):
        _film(path / f"take_{number}.mp4", list(episode.image))
    lines = ["video,action_0,action_1,reward,terminated"]
    for number, episode in enumerate(episodes):
        for t in range(episode.steps):
            values = [*episode.action[t].tolist(), float(episode.reward[t])]
            ends = int(episode.terminated and t == episode.steps - 1)
            lines.append(",".join([f"take_{number}", *map(repr, values), str(ends)]))
    (path / "actions.csv").write_text("\n".join(lines) + "\n")
    return path


def replay(path: Path, episodes: list[Known]) -> Path:
    from worldmodel.experience.replay import Replay

    held = Replay(path / "replay/rank_0", image_shape=(3, SIZE, SIZE), action_size=ACTIONS)
    for episode in episodes:
        records = np.zeros(episode.steps + 1, held.dtype)
        records["image"] = episode.image.transpose(0, 3, 1, 2)
        records["action"], records["reward"] = _led(episode.action), _led(episode.reward)
        records["is_first"][0], records["is_terminal"][-1] = True, episode.terminated
        held.add_episode(records)
    return path
