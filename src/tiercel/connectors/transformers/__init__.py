"""The embedded engine: a Hugging Face `transformers` model with Tiercel behind its KV cache.

Needs the extra `transformers` (torch and transformers); this package alone imports them.
"""

from tiercel.connectors.transformers.buffers import SequenceBuffer
from tiercel.connectors.transformers.engine import ChunkDone, EmbeddedEngine, EngineOptions
from tiercel.connectors.transformers.model import LoadedModel, load_model
from tiercel.connectors.transformers.records import Generation, Span
from tiercel.connectors.transformers.tokenizer import ByteTokenizer, Tokenizer

__all__ = [
    "ByteTokenizer",
    "ChunkDone",
    "EmbeddedEngine",
    "EngineOptions",
    "Generation",
    "LoadedModel",
    "SequenceBuffer",
    "Span",
    "Tokenizer",
    "load_model",
]
