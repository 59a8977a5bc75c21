"""The uncertainty study, ``python -m experiments.uncertainty``: train on data with a hole, measure who knows of it."""
