from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from worldmodel.errors import UserError
from worldmodel.insight.video import mp4_bytes, read_mp4, write_gif, write_mp4


def test_round_trip_enlarges_to_even_sides(tmp_path: Path) -> None:
    film = np.zeros((4, 33, 67, 3), np.uint8)
    for t in range(4):
        film[t, :, : 10 + 10 * t] = (250, 120, 60)
    write_mp4(tmp_path / "new" / "film.mp4", film, fps=10)
    again = read_mp4(tmp_path / "new" / "film.mp4")
    assert again.shape == (4, 264, 536, 3)
    assert np.abs(again[:, 4:260:8, 4:532:8].astype(int) - film[:, :32, :66]).mean() < 6
    with av.open(str(tmp_path / "new" / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)


def test_large_odd_frames_keep_their_size(tmp_path: Path) -> None:
    write_mp4(tmp_path / "film.mp4", np.full((2, 301, 257, 3), 90, np.uint8))
    assert read_mp4(tmp_path / "film.mp4").shape == (2, 302, 258, 3)


def test_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", full)
    with pytest.raises(UserError, match=r"film\.mp4: .*No space left"):
        write_mp4(path, np.zeros((2, 64, 64, 3), np.uint8))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write the film"):
        write_mp4(tmp_path / "file" / "film.mp4", np.zeros((2, 64, 64, 3), np.uint8))


def moving(frames: int = 5) -> np.ndarray:
    """A red bar that grows by 8 pixels a frame over blue."""
    film = np.full((frames, 48, 64, 3), (40, 60, 200), np.uint8)
    for t in range(frames):
        film[t, :, : 8 * (t + 1)] = (220, 40, 40)
    return film


def test_a_film_in_memory_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(mp4_bytes(moving(), fps=8))
    again = read_mp4(tmp_path / "film.mp4")
    assert again.shape == (5, 288, 384, 3)
    assert np.abs(again[:, 3::6, 3::6].astype(int) - moving()).mean() < 6


def test_gif(tmp_path: Path) -> None:
    write_gif(tmp_path / "new" / "film.gif", moving(), fps=8)
    with Image.open(tmp_path / "new" / "film.gif") as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"], gif.info["duration"]) == (5, (64, 48), 0, 120)
        for t, frame in enumerate(moving()):
            gif.seek(t)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame).max() < 8
    assert [x.name for x in (tmp_path / "new").iterdir()] == ["film.gif"]
    with pytest.raises(UserError, match="cannot write the film"):
        write_gif(tmp_path / "new", moving())


def test_no_film_to_read(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film")
    for name in ("film.mp4", "none.mp4"):
        with pytest.raises(UserError, match=f"cannot read the film .*{name}"):
            read_mp4(tmp_path / name)


@pytest.mark.parametrize("write", [write_mp4, write_gif, lambda _, frames: mp4_bytes(frames)])
@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 8, 8), (2, 3, 8, 8)])
def test_not_a_film(tmp_path: Path, shape: tuple[int, ...], write: Callable[[Path, np.ndarray], object]) -> None:
    with pytest.raises(ValueError, match="a film is"):
        write(tmp_path / "film.mp4", np.zeros(shape, np.uint8))
