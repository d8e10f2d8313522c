"""Names of element types and their widths, without importing torch.

A KV cache is bytes to Tiercel; the element type enters its identity (two caches of different types are never
exchangeable) and its size. Whoever takes a type from a user calls `dtype_name` on it.
"""

from tiercel.config.messages import nearest, problem

DTYPE_BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "int8": 1,
    "uint8": 1,
}
"""Width in bytes of one element, by name. The names are torch's."""


def dtype_name(key: str, value: object) -> str:
    """Return the plain name of an element type given as a name, a torch.dtype or a numpy dtype.

    Args:
        key: the setting that the value came from, for the message.
        value: such as "bfloat16", torch.bfloat16, "torch.bfloat16" or numpy.float16.

    Raises:
        ConfigError: the type is unknown.
    """
    text = value.__name__ if isinstance(value, type) else str(value)
    name = text.removeprefix("torch.")
    if name not in DTYPE_BYTES:
        known = ", ".join(DTYPE_BYTES)
        raise problem(key, value, f"must be one of {known}", nearest(name, DTYPE_BYTES) or "name the KV cache's type")
    return name
