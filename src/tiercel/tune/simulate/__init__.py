"""The real control half over modelled tiers and a modelled engine, on a virtual clock."""

from tiercel.tune.simulate.endurance import bytes_of_drives, parse_endurance
from tiercel.tune.simulate.making import EngineFacts, make_engine, make_setup
from tiercel.tune.simulate.prefill import (
    PrefillSource,
    prefill_of_cache,
    prefill_of_file,
    prefill_of_model,
    prefill_of_points,
)
from tiercel.tune.simulate.report import render_report, write_report
from tiercel.tune.simulate.result import SimulationResult, TierTraffic
from tiercel.tune.simulate.setup import EngineModel, Link, SimulationSetup
from tiercel.tune.simulate.simulation import Simulation, simulate
from tiercel.tune.simulate.summary import Summary, requests_csv, summarize, summary_csv

__all__ = [
    "EngineFacts",
    "EngineModel",
    "Link",
    "PrefillSource",
    "Simulation",
    "SimulationResult",
    "SimulationSetup",
    "Summary",
    "TierTraffic",
    "bytes_of_drives",
    "make_engine",
    "make_setup",
    "parse_endurance",
    "prefill_of_cache",
    "prefill_of_file",
    "prefill_of_model",
    "prefill_of_points",
    "render_report",
    "requests_csv",
    "simulate",
    "summarize",
    "summary_csv",
    "write_report",
]
