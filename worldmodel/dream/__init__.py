"""The model as an environment, for other libraries to learn in."""
