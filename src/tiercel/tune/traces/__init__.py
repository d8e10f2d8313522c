"""Request traces of the field's formats in one form, and back."""

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.trace import NO_BLOCK, NO_REQUEST, NO_SESSION, Trace

__all__ = ["NO_BLOCK", "NO_REQUEST", "NO_SESSION", "Trace", "TraceBuilder"]
