"""``python -m experiments.encoders.work DONE LABELS MINUTES WORDS...``: train a run, or resume it, and measure it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from experiments.encoders.measure import measure
from experiments.runner import ROOT


def main() -> None:
    done, labels, minutes, words = Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    subprocess.run([sys.executable, "-m", "worldmodel", *words], cwd=ROOT, check=True)
    found = measure(Path(words[words.index("--run") + 1])) | {"limit": minutes}
    rows = [labels | {"metric": name, "value": value} for name, value in found.items()]
    temporary = done.with_suffix(".tmp")
    temporary.write_text(json.dumps(rows))
    os.replace(temporary, done)


if __name__ == "__main__":
    main()
