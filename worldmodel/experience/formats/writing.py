"""Episodes written as others read them. Legend: T steps, A action size, N rows of all episodes."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.experience.action_scale import ActionScale
from worldmodel.experience.formats.base import ForeignEpisode, package


class EpisodeWriter(ABC):
    """Writes episodes one after another; ``close`` when all are there.

    Args:
        path: of the file or folder, which is not there yet.
        scale: the box or the choices of actions.
        image_shape: (H, W, 3).

    Raises:
        UserError: a package is missing.
    """

    def __init__(self, path: Path, scale: ActionScale, image_shape: tuple[int, ...]) -> None:
        self.path, self.scale, self.image_shape = path, scale, image_shape
        self.episodes = self.steps = 0
        self._file = self._begin(package("h5py", "to write HDF5"))

    @abstractmethod
    def _begin(self, h5py: Any) -> Any:
        """Make the file, an ``h5py.File``."""

    def add(self, episode: ForeignEpisode) -> None:
        """Write one; its images are (T + 1, H, W, 3) uint8, and its actions in the units of ``scale``."""
        reward = np.full(len(episode.action), np.nan) if episode.reward is None else episode.reward
        self._add(np.stack(list(episode.image)), episode._replace(reward=reward), reward)
        self.episodes, self.steps = self.episodes + 1, self.steps + len(episode.action)

    @abstractmethod
    def _add(self, image: np.ndarray, episode: ForeignEpisode, reward: np.ndarray) -> None: ...

    def close(self) -> None:
        self._file.close()

    def actions(self, action: np.ndarray) -> np.ndarray:
        """(T,) int64 choices, or (T, A) float32."""
        return action.astype(np.int64) if self.scale.discrete else action.astype(np.float32)


class MinariWriter(EpisodeWriter):
    """A folder of Minari: ``data/main_data.hdf5`` and ``data/metadata.json``. Pictures are kept whole, not as JPEG.

    ``minari.MinariDataset(PATH/data)`` reads it.
    """

    def _begin(self, h5py: Any) -> Any:
        (self.path / "data").mkdir(parents=True)
        return h5py.File(self.path / "data" / "main_data.hdf5", "w", track_order=True)

    def _add(self, image: np.ndarray, episode: ForeignEpisode, reward: np.ndarray) -> None:
        group = self._file.create_group(f"episode_{self.episodes}")
        group.attrs["id"], group.attrs["total_steps"] = self.episodes, len(reward)
        ends = np.arange(len(reward)) == len(reward) - 1
        group.create_dataset("observations", data=image, chunks=(1, *image.shape[1:]))
        group.create_dataset("actions", data=self.actions(episode.action))
        group.create_dataset("rewards", data=reward.astype(np.float64))
        group.create_dataset("terminations", data=ends & episode.terminated)
        group.create_dataset("truncations", data=ends & (not episode.terminated))

    def close(self) -> None:
        super().close()
        size = (self.path / "data" / "main_data.hdf5").stat().st_size / 1e6
        held = {
            "data_format": "hdf5",
            "jpeg_encoding": False,
            "dataset_id": "worldmodel/episodes-v0",
            "total_episodes": self.episodes,
            "total_steps": self.steps,
            "dataset_size": round(size, 1),
            "observation_space": json.dumps(
                _box(np.zeros(self.image_shape, int), np.full(self.image_shape, 255), "uint8")
            ),
            "action_space": json.dumps(self._action_space()),
            "minari_version": "0.5.0",
        }
        (self.path / "data" / "metadata.json").write_text(json.dumps(held))

    def _action_space(self) -> dict[str, Any]:
        scale = self.scale
        if scale.discrete:
            return {"type": "Discrete", "dtype": "int64", "start": scale.start, "n": scale.size}
        return _box(np.array(scale.low), np.array(scale.high), "float32")


class ColumnsWriter(EpisodeWriter):
    """One HDF5 file of columns, as ``StableWorldModelFile`` says; beside the actions stands their box."""

    def _begin(self, h5py: Any) -> Any:
        file = h5py.File(self.path, "w", libver="latest")
        columns: dict[str, tuple[tuple[int, ...], Any]] = {
            "pixels": (self.image_shape, np.uint8),
            "action": ((), np.int64) if self.scale.discrete else ((self.scale.size,), np.float32),
            "reward": ((), np.float32),
            "terminated": ((), bool),
            "truncated": ((), bool),
            "ep_len": ((), np.int32),
            "ep_offset": ((), np.int64),
        }
        for name, (shape, dtype) in columns.items():
            chunks = (1, *shape) if name == "pixels" else (1024, *shape)
            file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunks)
        scale = self.scale
        file["action"].attrs.update(
            {"choices": scale.size, "start": scale.start}
            if scale.discrete
            else {"low": np.array(scale.low), "high": np.array(scale.high)}
        )
        return file

    def _add(self, image: np.ndarray, episode: ForeignEpisode, reward: np.ndarray) -> None:
        action = self.actions(episode.action)
        none = np.zeros_like(action[:1]) if self.scale.discrete else np.full_like(action[:1], np.nan)
        ends = np.arange(len(image)) == len(image) - 1
        begin = len(self._file["pixels"])
        self._append("pixels", image)
        self._append("action", np.concatenate([action, none]))
        self._append("reward", np.concatenate([[np.nan], reward]))
        self._append("terminated", ends & episode.terminated)
        self._append("truncated", ends & (not episode.terminated))
        self._append("ep_len", np.array([len(image)]))
        self._append("ep_offset", np.array([begin]))

    def _append(self, name: str, rows: np.ndarray) -> None:
        dataset = self._file[name]
        before = len(dataset)
        dataset.resize(before + len(rows), axis=0)
        dataset[before:] = rows


def _box(low: np.ndarray, high: np.ndarray, dtype: str) -> dict[str, Any]:
    return {"type": "Box", "dtype": dtype, "shape": list(low.shape), "low": low.tolist(), "high": high.tolist()}


WRITERS: dict[str, type[EpisodeWriter]] = {"minari": MinariWriter, "hdf5": ColumnsWriter}
