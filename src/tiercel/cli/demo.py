"""`tiercel demo`: the main job on real input, with and without the cache and across a SIGKILL."""

from typing import Annotated

from cyclopts import Parameter

from tiercel.demo.options import DemoOptions

EXTRA_MODULES = ("torch", "transformers", "tokenizers", "safetensors")
_DEFAULTS = DemoOptions()


def demo(options: Annotated[DemoOptions, Parameter(name="*", negative="")] = _DEFAULTS) -> int:
    """Answer questions about documents with a real engine, without the cache and with it, and across a SIGKILL.

    Returns:
        0 if every token and every byte was as it must be, else 1.
    """
    try:
        from tiercel.demo import run_demo

        return run_demo(options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in EXTRA_MODULES:
            raise
        raise ValueError(f"the demo needs {error.name}: pip install 'tiercel[transformers]'") from error
