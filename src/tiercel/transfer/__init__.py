"""The data half's mover: runs plans over tiers in bounded queues, and watches deadlines."""

from tiercel.transfer.deadlines import Deadlines
from tiercel.transfer.devices import Devices
from tiercel.transfer.engine import TransferEngine
from tiercel.transfer.lanes import LaneName, TransferSettings

__all__ = ["Deadlines", "Devices", "LaneName", "TransferEngine", "TransferSettings"]
