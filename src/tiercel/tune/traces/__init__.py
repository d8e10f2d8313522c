"""Request traces of the field's formats in one form, and back."""

from tiercel.tune.traces.builder import TraceBuilder
from tiercel.tune.traces.format import ReadOptions
from tiercel.tune.traces.formats import FORMATS
from tiercel.tune.traces.reading import read_trace
from tiercel.tune.traces.reblock import with_tokens_per_block
from tiercel.tune.traces.summary import TraceSummary, summarise_trace
from tiercel.tune.traces.tokens import load_tokenizer
from tiercel.tune.traces.trace import NO_BLOCK, NO_REQUEST, NO_SESSION, Trace
from tiercel.tune.traces.writing import WRITTEN, write_trace

__all__ = [
    "FORMATS",
    "NO_BLOCK",
    "NO_REQUEST",
    "NO_SESSION",
    "WRITTEN",
    "ReadOptions",
    "Trace",
    "TraceBuilder",
    "TraceSummary",
    "load_tokenizer",
    "read_trace",
    "summarise_trace",
    "with_tokens_per_block",
    "write_trace",
]
