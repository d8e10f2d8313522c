"""Whether vLLM is installed. A folder of tests that is called vllm is not it: pytest may put its parent on the path."""

import importlib.util

_spec = importlib.util.find_spec("vllm")
HAS_VLLM = _spec is not None and _spec.origin is not None
