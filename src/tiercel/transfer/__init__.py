"""The data half's mover: runs plans over tiers in bounded queues, and watches deadlines."""

from tiercel.transfer.deadlines import Deadlines, as_seconds, longest_wait
from tiercel.transfer.devices import Devices, GpuCopySettings, GpuPoolUse
from tiercel.transfer.engine import TransferEngine
from tiercel.transfer.guard import DirectMemory
from tiercel.transfer.lanes import LaneName, TransferSettings, lane_of
from tiercel.transfer.layers import LayerArrivals
from tiercel.transfer.queues import NOBODY, Owner, TenantRate
from tiercel.transfer.remote import RemoteBlocks
from tiercel.transfer.sides import EngineSide

__all__ = [
    "NOBODY",
    "Deadlines",
    "Devices",
    "DirectMemory",
    "EngineSide",
    "GpuCopySettings",
    "GpuPoolUse",
    "LaneName",
    "LayerArrivals",
    "Owner",
    "RemoteBlocks",
    "TenantRate",
    "TransferEngine",
    "TransferSettings",
    "as_seconds",
    "lane_of",
    "longest_wait",
]
