"""``python -m benchmarks.study``: see run.py, which processes of its own can import."""

from benchmarks.study.run import main

main()
