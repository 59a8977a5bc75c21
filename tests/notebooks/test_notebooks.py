"""The notebooks run from their sources, and what is stored of them is what they say."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from notebooks.render import FOLDER, SOURCES, executed, missing

NAMES = ["1_data", "2_filter", "3_imagine", "4_plan", "5_trust", "6_encoder", "7_environment", "8_ppo", "9_offline"]
MOST = 1_500_000  # bytes of a notebook with its outputs
HERE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|opt|var|Users|mnt)/")  # a path of somebody's machine


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def words(output: nbformat.NotebookNode) -> str:
    """What an output says, without pictures and films."""
    said = [output.get("text", ""), *(x for kind, x in output.get("data", {}).items() if kind.startswith("text/"))]
    return re.sub(r"base64,[\w+/=]+", "", "".join(said))


def stored(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_all_are_there() -> None:
    assert [source.stem for source in SOURCES] == NAMES
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_it_runs(source: Path) -> None:
    """Every cell, and so every assertion, in a fresh kernel."""
    if (wanted := missing(source)) is not None:
        pytest.skip(f"{wanted} is not installed")
    notebook = executed(source)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert not [words(x) for x in outputs(notebook) if x.get("name") == "stderr"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_what_is_stored_is_the_source(source: Path) -> None:
    written, read = jupytext.read(source), stored(source)
    nbformat.validate(read)
    assert [(c.cell_type, c.source) for c in read.cells] == [(c.cell_type, c.source) for c in written.cells]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_what_is_stored_is_whole(source: Path) -> None:
    read = stored(source)
    code = [cell for cell in read.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(re.search(r"^assert ", cell.source, re.MULTILINE) for cell in code)
    assert sum("image/png" in x.get("data", {}) for x in outputs(read)) >= 2
    assert not [x for x in outputs(read) if x.output_type == "error" or x.get("name") == "stderr"]
    assert not [words(x) for x in outputs(read) if HERE.search(words(x))]
    assert source.with_suffix(".ipynb").stat().st_size < MOST


def test_dreams_are_films() -> None:
    films = [x for x in outputs(stored(FOLDER / "3_imagine.py")) if "<video" in x.get("data", {}).get("text/html", "")]
    assert films
    assert "data:video/mp4;base64," in films[0].data["text/html"]
