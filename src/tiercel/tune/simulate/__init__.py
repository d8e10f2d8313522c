"""The real control half over modelled tiers and a modelled engine, on a virtual clock."""

from tiercel.tune.simulate.result import SimulationResult, TierTraffic
from tiercel.tune.simulate.setup import EngineModel, Link, SimulationSetup

__all__ = ["EngineModel", "Link", "SimulationResult", "SimulationSetup", "TierTraffic"]
