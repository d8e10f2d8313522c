"""The real control half over modelled tiers and a modelled engine, on a virtual clock."""

from tiercel.tune.simulate.result import SimulationResult, TierTraffic
from tiercel.tune.simulate.setup import EngineModel, Link, SimulationSetup
from tiercel.tune.simulate.simulation import Simulation, simulate

__all__ = [
    "EngineModel",
    "Link",
    "Simulation",
    "SimulationResult",
    "SimulationSetup",
    "TierTraffic",
    "simulate",
]
