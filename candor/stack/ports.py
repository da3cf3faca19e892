"""Free ports for the processes of the local service."""

from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass

from candor.gateway.sockets import bound, listening_host, loopback
from candor.stack.config import StackConfig
from candor.stack.errors import StackError
from candor.stack.torchserve import TorchServePorts


@dataclass(frozen=True, slots=True)
class Ports(TorchServePorts):
    """TorchServe's five loopback ports and the gateway's four."""

    grpc: int
    rest: int
    gateway_metrics: int
    health: int


def require_free_ports(config: StackConfig) -> None:
    """Raises: StackError: a port of the gateway is taken, or both are the same."""
    try:
        listening_host(config.host)
    except OSError as err:
        raise StackError(
            f"host: expected a name or an address of this machine, got {config.host!r}: "
            f"{err.strerror}"
        ) from err
    if config.grpc_port == config.rest_port != 0:
        raise StackError(f"grpc-port, rest-port: expected two ports, got {config.grpc_port} twice")
    for transport, port in (("gRPC", config.grpc_port), ("REST", config.rest_port)):
        try:
            bound(config.host, port).close()
        except OSError as err:
            raise StackError(
                f"{transport} port {port} on {config.host} cannot be used ({err.strerror}); "
                f"choose another with --{transport.lower()}-port"
            ) from err


def require_free_torchserve_ports(ports: TorchServePorts) -> None:
    """Raises: StackError: one of TorchServe's ports on loopback is taken, which names it."""
    for name, port in asdict(ports).items():
        try:
            bound(loopback(), port).close()
        except OSError as err:
            raise StackError(
                f"TorchServe's {name} port {port} cannot be used ({err.strerror})"
            ) from err


def pick_ports(config: StackConfig) -> Ports:
    """Distinct ports, all free now; the gateway's as configured where that is not 0."""
    of_gateway = (config.grpc_port, config.rest_port, 0, 0)
    wanted = [*[(loopback(), 0)] * 5, *((config.host, port) for port in of_gateway)]
    with ExitStack() as held:
        sockets = [held.enter_context(closing(bound(host, port))) for host, port in wanted]
        return Ports(*(server.getsockname()[1] for server in sockets))
