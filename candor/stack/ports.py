"""Free ports for the processes of the local service."""

import socket
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass

from candor.stack.config import StackConfig
from candor.stack.errors import StackError
from candor.stack.torchserve import LOOPBACK, TorchServePorts


@dataclass(frozen=True, slots=True)
class Ports(TorchServePorts):
    """TorchServe's five loopback ports and the gateway's four."""

    grpc: int
    rest: int
    gateway_metrics: int
    health: int


def require_free_ports(config: StackConfig) -> None:
    """Raises: StackError: a port of the gateway is taken, or both are the same."""
    if config.grpc_port == config.rest_port != 0:
        raise StackError(f"grpc-port, rest-port: expected two ports, got {config.grpc_port} twice")
    for transport, port in (("gRPC", config.grpc_port), ("REST", config.rest_port)):
        try:
            _bind(config.host, port).close()
        except OSError as err:
            raise StackError(
                f"{transport} port {port} on {config.host} cannot be used ({err.strerror}); "
                f"choose another with --{transport.lower()}-port"
            ) from err


def require_free_torchserve_ports(ports: TorchServePorts) -> None:
    """Raises: StackError: one of TorchServe's ports on loopback is taken, which names it."""
    for name, port in asdict(ports).items():
        try:
            _bind(LOOPBACK, port).close()
        except OSError as err:
            raise StackError(
                f"TorchServe's {name} port {port} cannot be used ({err.strerror})"
            ) from err


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def pick_ports(config: StackConfig) -> Ports:
    """Distinct ports, all free now; the gateway's as configured where that is not 0."""
    wanted = (0, 0, 0, 0, 0, config.grpc_port, config.rest_port, 0, 0)
    with ExitStack() as held:
        sockets = [held.enter_context(closing(_bind(config.host, port))) for port in wanted]
        return Ports(*(listener.getsockname()[1] for listener in sockets))
