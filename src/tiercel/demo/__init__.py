"""`tiercel demo`: real documents, a real engine, a cache that is killed and comes back; every byte checked.

Part of the outer ring: uses the public API of the core and the embedded engine of `connectors.transformers`.
"""

from tiercel.demo.options import DemoOptions
from tiercel.demo.run import run_demo

__all__ = ["DemoOptions", "run_demo"]
