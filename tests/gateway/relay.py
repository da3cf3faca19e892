"""A TCP relay between a client and the gateway that can fall silent, as a lost network does."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Relay:
    """Passes bytes on until it is told to be silent; connections then stay open.

    Attributes:
        address: for clients.
        connection_count: how many were opened.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connection_count = 0
        self.is_silent = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        partners: dict[socket.socket, socket.socket] = {}
        while not self._ended.is_set():
            ready, _, _ = select.select([self._listener, *partners], [], [], 0.02)
            for source in ready:
                if source is self._listener:
                    self._accept(partners)
                elif source in partners and not self.is_silent.is_set():
                    _pass_on(source, partners)
            if self.is_silent.is_set():
                self._ended.wait(0.02)
        for connection in (self._listener, *partners):
            connection.close()

    def _accept(self, partners: dict[socket.socket, socket.socket]) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        partners[client], partners[server] = server, client
        self.connection_count += 1


def _pass_on(source: socket.socket, partners: dict[socket.socket, socket.socket]) -> None:
    target = partners[source]
    try:
        data = source.recv(65536)
        target.sendall(data)
    except OSError:
        data = b""
    if not data:
        for one in (source, target):
            del partners[one]
            one.close()


@contextmanager
def relayed(port: int) -> Iterator[Relay]:
    relay = Relay(port)
    try:
        yield relay
    finally:
        relay.close()
