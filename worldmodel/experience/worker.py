"""An environment in a process of its own, pinned to a core, which never imports torch.

``python -m worldmodel.experience.worker FD`` is the child; ``WorkerHandle`` is the parent's end of its pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from multiprocessing.connection import Connection, Pipe
from typing import Any

from worldmodel.errors import UserError
from worldmodel.experience.handle import Act, EnvFrame, LocalEnv, Redo, Reset

# seconds that a worker may be silent: many times what playing a whole episode again takes
PATIENCE = float(os.environ.get("WORLDMODEL_PATIENCE", 300))


class WorkerDied(Exception):
    """The process behind a handle is gone."""


class WorkerHandle:
    """An environment in a child process. Starts at once; ``ready`` waits until it can be used."""

    def __init__(self, settings: dict[str, Any], core: int | None) -> None:
        self._pipe, end = Pipe()
        command = [
            sys.executable,
            "-P",  # the current folder is searched where a task asks for it, and last
            "-m",
            "worldmodel.experience.worker",
            str(end.fileno()),
        ]
        limits = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self._process = subprocess.Popen(command, pass_fds=[end.fileno()], env={**os.environ, **limits})
        end.close()
        self._post((settings, core))

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> None:
        """Wait for the environment.

        Raises:
            UserError: it could not be made, for the reason given.
            WorkerDied: the process ended, or was silent for too long and was ended.
        """
        self.action, self.image_shape, self.vector_size, self.note = self._answer()

    def send(self, command: Reset | Act | Redo) -> None:
        self._post(command)

    def receive(self) -> EnvFrame:
        return self._answer()

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _post(self, message: Any) -> None:
        with contextlib.suppress(OSError):  # dead: the answer will say so
            self._pipe.send(message)

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(PATIENCE):
                self._process.kill()
                raise WorkerDied(f"no answer for {PATIENCE:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as cause:
            raise WorkerDied(f"exit code {self._process.wait()}") from cause
        if isinstance(answer, Exception):
            raise answer
        return answer


def serve(pipe: Connection) -> None:
    """Answer commands until the parent hangs up."""
    settings, core = pipe.recv()
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    handle = LocalEnv(settings)
    pipe.send((handle.action, handle.image_shape, handle.vector_size, handle.note))
    while True:
        handle.send(pipe.recv())
        pipe.send(handle.receive())


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    pipe = Connection(int(sys.argv[1]))
    try:
        serve(pipe)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except UserError as error:
        pipe.send(error)
    except Exception:  # the parent raises it
        pipe.send(RuntimeError(f"an environment worker failed:\n{traceback.format_exc()}"))


if __name__ == "__main__":
    main()
