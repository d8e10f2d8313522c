"""An engine's CUDA events and streams as the numbers that the driver knows them by, without importing the engine's library."""

from tiercel.layout.arrays import HOST_DEVICE


def event_handle(event: object) -> int:
    """Return the CUevent of an engine's event: a number, or an object that has it as `cuda_event`, as torch's does."""
    handle = getattr(event, "cuda_event", event)
    if not isinstance(handle, int):
        raise TypeError(f"a {type(event).__name__} is no CUDA event: give a torch.cuda.Event or a CUevent as a number")
    return handle


def stream_handle(stream: object) -> int:
    """Return the CUstream of an engine's stream: a number, or an object that has it as `cuda_stream`, as torch's does."""
    handle = getattr(stream, "cuda_stream", stream)
    if not isinstance(handle, int):
        raise TypeError(
            f"a {type(stream).__name__} is no CUDA stream: give a torch.cuda.Stream or a CUstream as a number"
        )
    return handle


def check_event(event: object, device: str) -> None:
    """Raise ValueError or TypeError if an event cannot be waited for before blocks on this device are touched."""
    if device == HOST_DEVICE:
        raise ValueError("after: host memory has no events; wait for the engine before giving its blocks")
    if event_handle(event) == 0:
        raise ValueError("after: the event was never recorded, so nobody could wait for it; record it first")
