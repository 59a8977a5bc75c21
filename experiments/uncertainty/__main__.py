"""``python -m experiments.uncertainty``: see run.py, which processes of its own can import."""

from experiments.uncertainty.run import main

main()
