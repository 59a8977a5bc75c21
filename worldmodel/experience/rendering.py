"""Pictures of dm_control physics, in two qualities. The first import decides the GL backend, so import it late."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from worldmodel.errors import UserError, one_line

if TYPE_CHECKING:
    from dm_control.mujoco import Physics

Quality = Literal["fast", "reference"]
Cameras = int | str | list[int | str] | None  # one, several, or a task's own choice

_PACKAGES = {"osmesa": "libosmesa6", "glfw": "libglfw3 libgl1"}
_EGL_PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"


def missing_gl(cause: Exception) -> UserError:
    """What to tell someone whose machine cannot draw."""
    backend = os.environ.get("MUJOCO_GL", "egl")
    packages = _PACKAGES.get(backend, _EGL_PACKAGES)
    return UserError(f"cannot render with MUJOCO_GL={backend} ({one_line(cause)}): apt-get install {packages}")


def set_backend() -> None:
    """Let MuJoCo draw without a display, whoever loads it; to be called before it is loaded."""
    if "torch" in sys.modules:
        with contextlib.suppress(ImportError):
            import triton  # noqa: F401  its native library crashes when it is loaded after Mesa's
    if "MUJOCO_GL" not in os.environ and not os.environ.get("DISPLAY"):
        os.environ["MUJOCO_GL"] = "egl"
    # Mesa's software rasteriser: threads cost more than they bring at this size.
    os.environ.setdefault("LP_NUM_THREADS", "0")


def import_suite() -> Any:
    """dm_control's suite module, with a GL backend that works headless.

    Raises:
        UserError: there is no usable GL library; names the packages to install.
    """
    set_backend()
    try:
        from dm_control import suite
    except (
        ImportError,
        AttributeError,
        RuntimeError,
    ) as cause:  # PyOpenGL fails in all three ways
        if isinstance(cause, ModuleNotFoundError) and (cause.name or "").startswith("dm_control"):
            raise UserError("dm_control is not installed: pip install dm-control") from cause
        raise missing_gl(cause) from cause
    return suite


class Renderer(Protocol):
    """Draws the present state of one physics."""

    def __call__(self) -> np.ndarray:
        """(size, size, 3) uint8."""
        ...


class ReferenceRenderer:
    """dm_control's own picture, pixel for pixel: the one that published results are about."""

    def __init__(self, physics: Physics, size: int, camera: int | str) -> None:
        self._physics, self._size, self._camera = physics, size, camera

    def __call__(self) -> np.ndarray:
        return self._physics.render(self._size, self._size, camera_id=self._camera)


class FastRenderer:
    """No shadow, reflection or haze; drawn twice as large and averaged, which is cheaper than multisampling.

    Scene and GL context are kept. Takes hold of ``physics.model.vis``, so it must come before any other render.
    """

    def __init__(self, physics: Physics, size: int, camera: int | str) -> None:
        import mujoco
        from dm_control.mujoco.engine import Camera

        self._size, large = size, 2 * size
        vis = physics.model.vis
        vis.quality.offsamples, vis.quality.shadowsize = 0, 0
        vis.global_.offwidth, vis.global_.offheight = large, large
        self._camera = Camera(physics, large, large, camera)
        for flag in ("SHADOW", "REFLECTION", "HAZE", "FOG"):
            self._camera.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0

    def __call__(self) -> np.ndarray:
        large = self._camera.render().astype(np.uint16)
        rows = large[0::2] + large[1::2]
        return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


_RENDERERS: dict[str, type[FastRenderer | ReferenceRenderer]] = {
    "fast": FastRenderer,
    "reference": ReferenceRenderer,
}


def make_renderer(quality: Quality, physics: Physics, size: int, camera: int | str) -> Renderer:
    """A renderer that has drawn once, so that whatever is missing is known now.

    Raises:
        UserError: unknown quality, no such camera, or no usable GL library.
    """
    if quality not in _RENDERERS:
        raise UserError(f"unknown render quality {quality!r}: choose one of {', '.join(_RENDERERS)}")
    import mujoco

    cameras = [physics.model.id2name(i, "camera") for i in range(physics.model.ncam)]
    if camera not in cameras and camera not in range(-1, len(cameras)):
        raise UserError(f"no camera {camera!r}: choose -1 to {len(cameras) - 1} or one of {', '.join(cameras)}")
    try:
        renderer = _RENDERERS[quality](physics, size, camera)
        renderer()
    except (RuntimeError, ImportError, mujoco.FatalError) as cause:
        raise missing_gl(cause) from cause
    return renderer
