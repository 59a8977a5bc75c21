"""``python -m experiments.encoders``: see run.py."""

from experiments.encoders.run import main

main()
