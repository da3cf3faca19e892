"""The whole service with keys and certificates: what `candor serve` starts with them in sight."""

import dataclasses
from pathlib import Path

import httpx
import pytest

from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from cli.stack import Stack, StackConfig
from gateway.client import CandorClient
from gateway.connection import Tls
from gateway.keys import add_key
from tests.gateway.certificates import Authority


def test_service_with_keys_and_tls_starts_and_asks_for_both(
    stack_config: StackConfig,
    images: list[api.ImageInput],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = Authority(tmp_path)
    cert, key, _ = authority.issue("server")
    monkeypatch.chdir(tmp_path)
    bearer = add_key(Path("keys"), "web", "acme", ["predict"])
    for name, file in (("KEYS_FILE", "keys"), ("TLS_CERT", cert.name), ("TLS_KEY", key.name)):
        monkeypatch.setenv(f"CANDOR_{name}", file)
    config = dataclasses.replace(stack_config, host="127.0.0.1")
    request = api.PredictRequest(image=images[0])
    with Stack(config) as stack:
        tls = Tls(ca=authority.ca)
        with CandorClient(stack.grpc_address, key=bearer, tls=tls, timeout_seconds=30) as client:
            assert client.predict(request).predictions
        with (
            CandorClient(stack.grpc_address, tls=tls, timeout_seconds=30) as client,
            pytest.raises(ServiceError) as caught,
        ):
            client.predict(request)
        assert caught.value.code is ErrorCode.UNAUTHENTICATED
        answer = httpx.get(f"{stack.rest_url}/v1/models", verify=str(authority.ca))
        assert answer.status_code == 401
