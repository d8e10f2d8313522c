"""The vLLM connector's halves without vLLM; they need torch for the tensors that they describe."""

import pytest

pytest.importorskip("torch", reason="torch is not installed: the vLLM connector is NOT tested")
