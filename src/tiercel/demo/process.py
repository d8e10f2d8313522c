"""The demo's side of a worker process: start it, ask it, kill it, and never leave it behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tiercel.demo.messages import (
    Answer,
    Ask,
    Chunk,
    Ended,
    Failed,
    FromWorker,
    Opening,
    Ready,
    Start,
    Stop,
    WorkerGoneError,
    from_worker,
    receive,
    send,
)

_END_TIMEOUT_S = 20.0
_LOG_LINES_SHOWN = 15
_ENVIRONMENT = ("OMP_WAIT_POLICY=PASSIVE", "CUBLAS_WORKSPACE_CONFIG=:4096:8")
"""On few cores, torch's threads must not spin while Tiercel's move bytes; cuBLAS needs a workspace to be deterministic."""


class WorkerProcess:
    """One worker, alive between `__enter__` and `__exit__`, killed at the latest there."""

    def __init__(self, log: Path, *, module: str = "tiercel.demo.worker") -> None:
        """log: file for what the worker prints. module: what to run."""
        self._log = log
        inbox, ours_out = os.pipe()
        ours_in, outbox = os.pipe()
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    ["env", *_ENVIRONMENT, sys.executable, "-m", module, str(inbox), str(outbox)],
                    pass_fds=(inbox, outbox),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        finally:
            os.close(inbox)
            os.close(outbox)
        self._from = os.fdopen(ours_in, "rb")
        self._to = os.fdopen(ours_out, "wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._from.close()
        self._to.close()

    def open(self, start: Start, on_progress: Callable[[Opening], None]) -> Ready:
        """Have the worker load its model and open its cache. Raises WorkerGoneError, with the reason."""
        self._send(start)
        while isinstance(message := self._receive(), Opening):
            on_progress(message)
        assert isinstance(message, Ready)
        return message

    def ask(self, ask: Ask, should_kill: Callable[[Chunk], bool] | None = None) -> Answer | Chunk:
        """Have one request answered.

        Args:
            should_kill: asked after every chunk of the prefill; True: SIGKILL the worker there and then.

        Returns:
            The answer, or the chunk after which the worker was killed.

        Raises:
            WorkerGoneError: the worker ended by itself, with the reason.
        """
        self._send(ask)
        while isinstance(message := self._receive(), Chunk):
            if should_kill is not None and should_kill(message):
                self.kill()
                return message
        assert isinstance(message, Answer)
        return message

    def stop(self) -> Ended:
        """Have the worker close its cache and end. Raises WorkerGoneError."""
        self._send(Stop())
        message = self._receive()
        assert isinstance(message, Ended)
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise WorkerGoneError(f"the worker did not end within {_END_TIMEOUT_S:.0f} s") from error
        return message

    def kill(self) -> None:
        """SIGKILL the worker and wait until it is gone. Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _send(self, message: Start | Ask | Stop) -> None:
        try:
            send(self._to, message)
        except WorkerGoneError as error:
            raise self._explained(error) from error

    def _receive(self) -> FromWorker:
        try:
            message: FromWorker = receive(self._from, from_worker)
        except WorkerGoneError as error:
            raise self._explained(error) from error
        if isinstance(message, Failed):
            raise WorkerGoneError(f"the worker failed: {message.reason}")
        return message

    def _explained(self, error: WorkerGoneError) -> WorkerGoneError:
        """The same error with the end of the worker's own words."""
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        return WorkerGoneError(f"the worker ended unexpectedly: {error}" + "".join(f"\n  | {line}" for line in lines))
