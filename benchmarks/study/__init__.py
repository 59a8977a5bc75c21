"""The uncertainty study: ``python -m benchmarks.study`` trains on data with a hole, and measures who knows of it."""
