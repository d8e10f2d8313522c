"""A message without end: ZeroMQ shows none of it, and the door cuts who sends one."""

import socket
import threading
import time
from pathlib import Path

import psutil
import zmq

from tests.helpers.remote_node import STATUS, AskedNode, made_keys, open_door
from tiercel.node.remote import DoorLimits, RemoteNode, read_client_keys
from tiercel.node.remote.intake import Intake

FRAME = zmq.Frame(bytes(100 << 10))
NUM_FRAMES = 10_000
WAIT_S = 20.0


def test_a_message_of_too_many_frames_is_cut_off_and_others_are_served(tmp_path: Path) -> None:
    keys, node = made_keys(tmp_path / "keys"), AskedNode()
    told = read_client_keys(keys / "ops.client.json")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with open_door(keys, DoorLimits(unseen_bytes_max=1 << 20), node) as door:
        peer = context.socket(zmq.DEALER)
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt_string(zmq.CURVE_SERVERKEY, told.server_key)
        peer.setsockopt_string(zmq.CURVE_PUBLICKEY, told.public_key)
        peer.setsockopt_string(zmq.CURVE_SECRETKEY, told.secret_key)
        peer.connect(door.endpoint)
        with RemoteNode(door.endpoint, told, timeout_s=WAIT_S) as client:
            assert client.status() == STATUS
            before = psutil.Process().memory_info().rss
            for number in range(NUM_FRAMES):
                peer.send(FRAME, 0 if number == NUM_FRAMES - 1 else zmq.SNDMORE, copy=False)
            stop_at = time.monotonic() + WAIT_S
            while door.counts.refused == 0 and door.counts.declined == 0:
                assert time.monotonic() < stop_at
                time.sleep(0.02)
            assert (door.counts.refused, door.counts.declined) == (1, 0)
            assert client.status() == STATUS
        context.destroy(linger=0)
        while door.counts.connections > 0:
            assert time.monotonic() < stop_at
            time.sleep(0.02)
        assert psutil.Process().memory_info().rss - before < len(FRAME.bytes) * NUM_FRAMES // 2


def test_what_has_come_is_counted_from_the_last_whole_message_and_a_cut_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sender:
        accepted, _ = listener.accept()
        intake = Intake(accepted.fileno())
        sender.sendall(bytes(1000))
        received = b""
        while len(received) < 1000:
            received += accepted.recv(1000)
        assert intake.unseen_bytes == 1000
        intake.heard()
        assert intake.unseen_bytes == 0
        closer = threading.Timer(0.1, intake.cut)
        closer.start()
        assert sender.recv(1) == b""
        closer.join()
        accepted.close()
        intake.close()
        intake.close()
        assert intake.unseen_bytes == 0


def test_a_connection_that_has_ended_already_has_sent_nothing() -> None:
    intake = Intake(1 << 20)
    assert intake.unseen_bytes == 0
    intake.cut()
    intake.close()
