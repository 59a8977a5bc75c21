"""Planners: model-predictive control by searching sequences of actions."""

from worldmodel.control.planners.base import Dynamics, Planner, Step
from worldmodel.control.planners.cem import CEM
from worldmodel.control.planners.gradient import GradientPlanner
from worldmodel.control.planners.ilqr import ILQR
from worldmodel.control.planners.mppi import MPPI
from worldmodel.control.planners.shooting import RandomShooting

__all__ = ["CEM", "ILQR", "MPPI", "Dynamics", "GradientPlanner", "Planner", "RandomShooting", "Step"]
