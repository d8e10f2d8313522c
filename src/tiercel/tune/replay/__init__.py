"""Traces replayed through the real cache, with real bytes on this machine's tiers, and held against the simulation of them."""

from tiercel.tune.replay.lockstep import simulate_in_lockstep
from tiercel.tune.replay.proof import BYTES_MIN, TOLERANCE, Compared, HitsCompared, Proof, prove
from tiercel.tune.replay.run import ReplayReport, replay
from tiercel.tune.replay.setup import FOLDER, Pace, ReplaySetup, first_requests

__all__ = [
    "BYTES_MIN",
    "FOLDER",
    "TOLERANCE",
    "Compared",
    "HitsCompared",
    "Pace",
    "Proof",
    "ReplayReport",
    "ReplaySetup",
    "first_requests",
    "prove",
    "replay",
    "simulate_in_lockstep",
]
