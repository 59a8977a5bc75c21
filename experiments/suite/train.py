"""``python -m experiments.suite.train RUN OUT LABELS WORDS...``: train or resume one run of the suite, write its row.

The row holds ``LABELS``, a JSON object, beside what the run came to. The commit is that of the run's first start.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

from experiments.runner import ROOT
from experiments.runs import row


def commit() -> str:
    """Of the repository, with a mark if something in it is not committed; empty outside of one."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=ROOT, capture_output=True, text=True
    )
    return described.stdout.strip()


def main() -> None:
    run, out, labels, words = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:]
    begun = out.with_suffix(".begun")
    if not begun.exists():
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.write_text(commit())
    ended = subprocess.run([sys.executable, "-m", "worldmodel", *words], cwd=ROOT)
    if ended.returncode:
        sys.exit(ended.returncode)
    said = [word for word in words if word not in ("--run", str(run))]
    found = labels | row(run) | {"command": shlex.join(["worldmodel", *said]), "commit": begun.read_text()}
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=1))
    temporary.replace(out)


if __name__ == "__main__":
    main()
