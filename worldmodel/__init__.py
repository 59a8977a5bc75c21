"""Learn a latent world model from pixels, know how sure it is, and control with it."""

__version__ = "0.1.0"
