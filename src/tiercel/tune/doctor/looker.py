"""The process that looks: takes one `Errand` as JSON on its standard input and prints facts as JSON, one object a line.

Started by `looking` as `python -m tiercel.tune.doctor.looker`. Later lines say more than earlier ones; whoever waits too
long for the last takes the one before.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tiercel.tune.doctor.directory import collect_directory
from tiercel.tune.doctor.errands import (
    Errand,
    LookAtDirectory,
    LookAtMachineFile,
    LookAtProcess,
    LookAtSettings,
    LookAtSystem,
)
from tiercel.tune.doctor.process import collect_process
from tiercel.tune.doctor.settings import collect_settings
from tiercel.tune.doctor.system import collect_system
from tiercel.tune.machine import read_machine


def look(errand: Errand) -> Iterator[msgspec.Struct]:
    """Yield the facts that an errand asks for."""
    match errand:
        case LookAtSystem():
            yield collect_system()
        case LookAtSettings(file=file, model=model):
            yield collect_settings(None if file is None else Path(file), None if model is None else Path(model))
        case LookAtDirectory(path=path):
            yield from collect_directory(Path(path))
        case LookAtProcess(pid=pid, socket=socket):
            yield collect_process(pid, None if socket is None else Path(socket))
        case LookAtMachineFile(path=path):
            yield read_machine(path)


def run() -> None:
    """Do the errand that stands on the standard input."""
    errand = msgspec.json.decode(sys.stdin.buffer.read(), type=Errand)
    for facts in look(errand):
        sys.stdout.buffer.write(msgspec.json.encode(facts) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    run()
