"""Planners: model-predictive control by searching sequences of actions."""
