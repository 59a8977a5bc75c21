from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from worldmodel.errors import UserError
from worldmodel.insight.video import write_mp4


def read(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_round_trip_enlarges_to_even_sides(tmp_path: Path) -> None:
    film = np.zeros((4, 33, 67, 3), np.uint8)
    for t in range(4):
        film[t, :, : 10 + 10 * t] = (250, 120, 60)
    write_mp4(tmp_path / "new" / "film.mp4", film, fps=10)
    again = read(tmp_path / "new" / "film.mp4")
    assert again.shape == (4, 264, 536, 3)
    assert np.abs(again[:, 4:260:8, 4:532:8].astype(int) - film[:, :32, :66]).mean() < 6
    with av.open(str(tmp_path / "new" / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)


def test_large_odd_frames_keep_their_size(tmp_path: Path) -> None:
    write_mp4(tmp_path / "film.mp4", np.full((2, 301, 257, 3), 90, np.uint8))
    assert read(tmp_path / "film.mp4").shape == (2, 302, 258, 3)


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


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 8, 8), (2, 3, 8, 8)])
def test_not_a_film(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a film is"):
        write_mp4(tmp_path / "film.mp4", np.zeros(shape, np.uint8))
