"""Execute notebooks and write them beside their sources: ``python notebooks/render.py [NAME ...]``.

A source is ``N_name.py``, percent format; what it becomes is ``N_name.ipynb``, with outputs.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("[0-9]_*.py"))
EXTRAS = {"8_ppo": "stable_baselines3", "9_offline": "h5py"}  # packages that a notebook wants and the others do not


def missing(source: Path) -> str | None:
    """The package that a notebook wants and that is not installed."""
    wanted = EXTRAS.get(source.stem)
    return None if wanted is None or importlib.util.find_spec(wanted) else wanted


def executed(source: Path) -> nbformat.NotebookNode:
    """The notebook with outputs, in a fresh kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = jupytext.read(source)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"  # drawn at random otherwise, so that every rendering would differ
    # the widgets' state is a copy of what a kernel holds: megabytes, of no use without it
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()
    return notebook


def write(source: Path) -> Path:
    """Execute a source and put what comes out beside it, whole or not at all."""
    notebook = executed(source)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py"}
    path = source.with_suffix(".ipynb")
    temporary = path.with_suffix(".tmp")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)
    return path


def main(names: list[str]) -> None:
    for source in [FOLDER / f"{Path(name).stem}.py" for name in names] or SOURCES:
        wanted = missing(source)
        said = f"{source.name} wants {wanted}" if wanted else f"{write(source).name} written"
        print(said, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
