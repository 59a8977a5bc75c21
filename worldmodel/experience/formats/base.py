"""What every format of data from elsewhere gives: episodes, aligned in one way. Legend: T steps, A action size."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from worldmodel.errors import UserError, one_line
from worldmodel.experience.action_scale import ActionScale


class ForeignEpisode(NamedTuple):
    """One episode: ``action[t]`` was taken in ``image[t]``, led to ``image[t + 1]``, and earned ``reward[t]``.

    Neither terminated nor truncated means that the recording stops there, which is like a time limit.
    """

    image: Iterable[np.ndarray]  # T + 1 of (H, W, C) uint8, read as they are asked for
    action: np.ndarray  # (T, ...) in the units of the data
    reward: np.ndarray | None  # (T,), None where nobody has recorded any
    terminated: bool  # nothing follows the last image
    truncated: bool  # a time limit ended it
    where: str  # for people: file and number
    vector: np.ndarray | None = None  # (T + 1, V) float32, beside the images


class Format(ABC):
    """Files of one layout.

    Args:
        path: of the file or folder.
        image: which picture, where there are several; the only one if None.

    Raises:
        UserError: they are not there, or of another layout.
    """

    name = ""  # that it was asked for by
    vector_size = 0  # V, numbers beside each image

    def __init__(self, path: Path, image: str | None = None) -> None:
        self.path, self.image = path, image
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Look at the layout, and read no episode."""

    @abstractmethod
    def __len__(self) -> int:
        """Episodes."""

    @abstractmethod
    def episodes(self) -> Iterator[ForeignEpisode]:
        """One after another, as they are read.

        Raises:
            UserError: a file is damaged, or lacks what an episode has.
        """

    @abstractmethod
    def actions(self) -> Iterator[np.ndarray]:
        """The actions (T, ...) of each episode, and nothing else.

        Raises:
            UserError: as of ``episodes``.
        """

    def scale(self) -> ActionScale | None:
        """The box or choices that the files say actions are of; None where they do not."""
        return None


def package(name: str, what: str) -> ModuleType:
    """Import what only data from elsewhere needs.

    Raises:
        UserError: it is not installed; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as cause:
        missing = name.partition(".")[0]
        raise UserError(f"{what} needs {missing}, which is not installed: pip install 'worldmodel[data]'") from cause


@contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Inside, a file of somebody else's is read; whatever that raises becomes one line.

    Raises:
        UserError: it is cut short, or damaged, or of another kind.
    """
    try:
        yield
    except (UserError, GeneratorExit, KeyboardInterrupt):
        raise
    except Exception as cause:  # readers raise anything
        kind = f" as {what}" if what else ""
        raise UserError(
            f"{path} cannot be read{kind}: it is damaged, cut short or something else ({one_line(cause)})"
        ) from cause


def lacking(path: Path, missing: Iterable[str], there: Iterable[str], what: str) -> UserError:
    """What to say of a file without a column."""
    held = ", ".join(sorted(there)[:8]) or "nothing"
    return UserError(f"{path} lacks {', '.join(missing)}, which {what} has: it holds {held}")


def chosen_image(names: Iterable[str], asked: str | None, path: Path) -> str:
    """Which of several pictures is meant.

    Raises:
        UserError: there is none, or nobody has said which.
    """
    known = list(names)
    if asked is not None:
        if asked not in known:
            raise UserError(f"{path} has no picture {asked}: there are {', '.join(known) or 'none'}")
        return asked
    if not known:
        raise UserError(f"{path} holds no pictures: a world model from pixels needs them")
    if len(known) > 1:
        raise UserError(f"{path} holds several pictures ({', '.join(known)}): say which with --image")
    return known[0]


def at_each_frame(
    image: Iterable[np.ndarray], action: np.ndarray, reward: np.ndarray | None
) -> tuple[Iterable[np.ndarray], np.ndarray, np.ndarray | None]:
    """Of as many images as actions, what is aligned: where the last action led was not recorded.

    Where rewards are, the last image stands twice, so that the last reward is not lost: in many tasks of robots it is
    the only one. Without them the last action is left out, and the episode does not end in a terminal state.
    """
    if reward is None or not len(reward) or np.isnan(reward[-1]):
        return image, action[:-1], None if reward is None else reward[:-1]
    return _last_twice(image), action, reward


def _last_twice(image: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    last: Any = None
    for last in image:
        yield last
    yield from chain([] if last is None else [last])
