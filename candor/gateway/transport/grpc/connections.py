"""The connections of the gRPC server, as the operating system knows them.

The library can only stop a server whole: it then resets the calls that come meanwhile, which
clients read as CANCELLED and do not repeat (https://github.com/grpc/grpc/issues/41785).  A
connection that ends is UNAVAILABLE to them, which every client repeats elsewhere.
"""

import os
import socket
import stat
from collections.abc import Collection, Iterator

_OPEN_FILES = "/dev/fd"
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def stop_listening(port: int) -> None:
    """Refuses new connections to ``port``; those that are open stay so.

    The library keeps its descriptor, which now stands for a socket that nobody can reach.
    """
    for one in _sockets(port):
        if _is_listener(one):
            with socket.socket(one.family, socket.SOCK_STREAM) as unreachable:
                os.dup2(unreachable.fileno(), one.fileno(), inheritable=False)


def shut_connections(port: int, kept: Collection[int] = ()) -> None:
    """Ends the connections of clients to ``port``, each after what was written to it.

    Args:
        kept: ports of the clients whose connections stay open.
    """
    for one in _sockets(port):
        try:
            if not _is_listener(one) and one.getpeername()[1] not in kept:
                one.shutdown(socket.SHUT_RDWR)
        except OSError:  # the client was faster
            continue


def _is_listener(one: socket.socket) -> bool:
    try:
        return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # a connection that the library closed meanwhile
        return False


def _sockets(port: int) -> Iterator[socket.socket]:
    """The TCP sockets of this process whose own port that is; each stays open."""
    for name in os.listdir(_OPEN_FILES):
        try:
            number = int(name)
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            one = socket.socket(fileno=number)
        except OSError:  # closed meanwhile
            continue
        try:
            if one.family in _FAMILIES and one.getsockname()[1] == port:
                yield one
        except OSError:
            continue
        finally:
            one.detach()
