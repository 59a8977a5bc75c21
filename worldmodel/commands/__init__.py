"""What ``worldmodel COMMAND`` does, a module for each; ``fit`` and ``validate`` are in ``training/fit.py``."""
