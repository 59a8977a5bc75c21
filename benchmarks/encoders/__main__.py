"""``python -m benchmarks.encoders``: see run.py."""

from benchmarks.encoders.run import main

main()
