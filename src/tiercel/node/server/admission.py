"""The node's door: which clients are let in, and what each is given."""

import itertools
import logging
import secrets
from functools import partial

from tiercel._native import NodeFront
from tiercel.cache import ServedCache
from tiercel.config import ModelConfig
from tiercel.layout import SlotOrder
from tiercel.layout.geometry import difference
from tiercel.node.board import BoardWriter
from tiercel.node.codec import encode
from tiercel.node.joining import Hello, Refused
from tiercel.node.protocol import TOKEN_BYTES
from tiercel.node.server.facts import welcome
from tiercel.node.server.memory import ClientCopies
from tiercel.node.server.session import Session

_log = logging.getLogger(__name__)


class Door:
    """Lets clients in. Of one thread, but for `close`.

    Attributes:
        num_refused: who was turned away.
        closed: whether the node is ending.
    """

    def __init__(
        self, cache: ServedCache, front: NodeFront, board: BoardWriter, model: ModelConfig, order: SlotOrder
    ) -> None:
        self._cache = cache
        self._front = front
        self._board = board
        self._model = model
        self._order: SlotOrder = order
        self._numbers = itertools.count(1)
        self.closed = False
        self.num_refused = 0

    def close(self) -> None:
        """Turn everybody away from now on."""
        self.closed = True

    def objection(self, hello: Hello, num_clients: int) -> str:
        """Why a client is not let in, "" if it is."""
        clients_max = self._cache.config.node_clients_max
        if num_clients >= clients_max:
            return f"the node has {num_clients} clients, which is as many as node_clients_max allows"
        odd = "" if hello.geometry is None else difference(hello.geometry, self._cache.geometry.fingerprint_parts())
        return f"the client's blocks have {odd}" if odd else ""

    def session(self, hello: Hello, connection: int, process: int) -> Session:
        """Make the session of a client that is let in."""
        send = partial(self._front.send, connection)
        label = f"client {hello.name!r} (process {process})"
        number = next(self._numbers)
        return Session(
            number=number,
            name=hello.name,
            process=process,
            token=secrets.token_bytes(TOKEN_BYTES),
            connection=connection,
            send=send,
            copies=ClientCopies(number, label, self._cache.geometry, self._cache.shared_memory, send),
            tickets_max=self._cache.config.node_tickets_max,
        )

    def welcome(self, session: Session) -> None:
        """Give a client the memory."""
        told = welcome(self._cache, self._model, self._order, client=session.number, token=session.token)
        fds = [*(memory.fd for memory in self._cache.shared_memory), self._board.fd]
        try:
            self._front.send(session.connection, encode(told), fds)
        except OSError as error:  # no descriptor is left for the copies of these
            _log.warning("client %d, %s, cannot be given the memory: %s", session.number, session.name, error)
            self._front.send(session.connection, encode(Refused(f"the node cannot hand out its memory: {error}")))
            self._front.cut(session.connection)
