"""Traces replayed through the real cache, with real bytes on this machine's tiers, and held against the simulation of them."""

from tiercel.tune.replay.accounts import ReplayReport
from tiercel.tune.replay.run import replay
from tiercel.tune.replay.setup import FOLDER, Pace, ReplaySetup

__all__ = ["FOLDER", "Pace", "ReplayReport", "ReplaySetup", "replay"]
