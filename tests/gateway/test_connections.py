"""The server's sockets, which the library opens and closes while they are looked through."""

import os
import socket

import pytest

from candor.gateway.transport.grpc import connections


def test_listener_is_told_from_a_connection():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
    ):
        assert connections._is_listener(listener)
        assert not connections._is_listener(accepted)
        assert not connections._is_listener(client)


def test_socket_closed_while_it_is_looked_at_is_no_listener():
    one = socket.socket()
    os.close(one.fileno())
    assert not connections._is_listener(one)
    one.detach()


def test_no_connection_is_taken_once_the_listener_is_stopped():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            socket.create_connection(("127.0.0.1", port)) as before,
            listener.accept()[0] as accepted,
        ):
            connections.stop_listening(port)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
            before.sendall(b"open")
            assert accepted.recv(4) == b"open"
