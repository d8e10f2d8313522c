"""The service manager that started this process, such as systemd, and being one for another."""

import os
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"


def service_manager_socket(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the address of its socket for sd_notify, None if there is none. A leading "@" stands for an abstract address."""
    address = (os.environ if environ is None else environ).get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return None
    return "\0" + address[1:] if address.startswith("@") else address


def managed_environment(address: str) -> dict[str, str]:
    """Return this process's environment, for one that is to tell how it stands at another address."""
    return {**os.environ, VARIABLE: address}
