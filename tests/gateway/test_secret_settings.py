"""No setting shows a secret: not in errors, not in logs, not in what a library writes."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from candor import tracing_export
from candor.contracts.secrets import Secret, WithoutSecrets
from candor.gateway import main as module
from candor.gateway import probe
from candor.gateway.access.tokens import BadToken, KeySource
from candor.gateway.config.settings import BadSettings, Settings, read_settings
from candor.gateway.observability.request_log import JsonLines
from candor.store.engine import StoreError, open_store
from tests.stack.collector import collecting

SECRET = "hunter2"
URLS = (
    f"postgresql://ada:{SECRET}@db/x",
    f"https://{SECRET}@host/path?password={SECRET}#{SECRET}",
    f"ada:{SECRET}@host",
)
OPEN = {"ALLOW_ANONYMOUS": "true"}
SECRET_FIELDS = [
    name for name, field in Settings.model_fields.items() if field.annotation is Secret
]


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDOR_MODELS", '["linear"]')


@pytest.mark.parametrize("field", Settings.model_fields)
def test_wrong_setting_beside_a_secret_shows_no_secret(
    field: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for url in URLS:
        for text in (url, json.dumps(url), json.dumps([url]), json.dumps({url: url})):
            monkeypatch.setenv(f"CANDOR_{field.upper()}", text)
            wrong = "CANDOR_REST_PORT" if field == "grpc_port" else "CANDOR_GRPC_PORT"
            monkeypatch.setenv(wrong, "many")
            assert module.main() == 2
            said = "".join(capsys.readouterr())
            assert said.startswith("candor.gateway: CANDOR_")
            assert said.count("\n") == 1
            assert SECRET not in said
            if field != "models" or text.startswith("["):
                is_read = "expected JSON" not in said
                assert f"{wrong}: expected a whole number, got 'many'" in said or not is_read


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("GRPC_PORT", "70000", "CANDOR_GRPC_PORT: expected 65535 or less, got '70000'"),
        ("MODELS", "[", "CANDOR_MODELS: expected JSON, got text that is not JSON at line 1"),
        ("MODELS", "[]", "CANDOR_MODELS: expected at least 1"),
        ("MODELS", '["a b"]', "CANDOR_MODELS.0: expected at most 63 small letters"),
        ("DOCS", "perhaps", "CANDOR_DOCS: expected true or false, got 'perhaps'"),
        ("LEASE_SECONDS", "0", "CANDOR_LEASE_SECONDS: expected more than 0"),
        ("OIDC_ALGORITHMS", '["HS256"]', "CANDOR_OIDC_ALGORITHMS.0: expected 'RS256'"),
        ("QUOTA", '{"x": 1}', "CANDOR_QUOTA.x: no such setting"),
        ("OTLP_ENDPOINT", "host:4317", "otlp_endpoint: expected http://HOST:PORT, got host:4317"),
        ("REST_PORT", "8500", "grpc_port, rest_port: expected two ports, got 8500 twice"),
        ("STORE_URL", "mysql://db/x", "store: expected a path, sqlite:///PATH or postgresql://"),
        ("KEYS_FILE", "/none", "/none"),
        ("TLS_CERT", "/none", "tls_cert, tls_key: expected both or none, got one"),
        ("REST_PORT", "1.0", "CANDOR_REST_PORT: expected a whole number, got '1.0'"),
        ("REST_PORT", "8_0", "CANDOR_REST_PORT: expected a whole number, got '8_0'"),
        ("REST_PORT", " 80 ", "CANDOR_REST_PORT: expected a whole number, got ' 80 '"),
        ("METRICS_PORT", "\u0668\u0660", "CANDOR_METRICS_PORT: expected a whole number"),
        ("DRAIN_SECONDS", "nan", "CANDOR_DRAIN_SECONDS: expected a number, got 'nan'"),
        ("QUOTA", '{"burst": true}', "CANDOR_QUOTA.burst: expected a whole number, got True"),
        ("QUOTA", '{"burst": 1, "burst": 2}', "CANDOR_QUOTA: 'burst': expected once, got twice"),
        ("QUOTA", '{"requests_per_second": NaN}', "CANDOR_QUOTA: expected finite numbers"),
        ("METRICS_PORT", "8501", "rest_port, metrics_port: expected two ports, got 8501 twice"),
        ("HEALTH_PORT", "8500", "grpc_port, health_port: expected two ports, got 8500 twice"),
        ("REST_PORT", "7070", "rest_port, torchserve_address: expected two ports, got 7070"),
        ("TORCHSERVE_ADDRESS", "127.0.0.1", "expected HOST:PORT, an IPv6 host in brackets"),
        ("TORCHSERVE_ADDRESS", "dns:///host", "torchserve_address: expected HOST:PORT"),
        ("TORCHSERVE_ADDRESS", "127.0.0.1:x", "address: expected HOST:PORT"),
        ("TORCHSERVE_ADDRESS", "127.0.0.1:0", "address: expected HOST:PORT"),
        ("TORCHSERVE_ADDRESS", "127.0.0.1:70000", "address: expected HOST:PORT"),
        ("KEY_FILE", "/none", "CANDOR_KEY_FILE: no such setting, near: CANDOR_KEYS_FILE"),
        ("GRPC_PROT", "1", "CANDOR_GRPC_PROT: no such setting, near: CANDOR_GRPC_PORT"),
        ("KEYS_FILE", "/dev/zero", "/dev/zero: expected a file, got a device"),
    ],
)
def test_wrong_setting_is_one_line_that_says_what_was_expected(
    name: str,
    text: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"CANDOR_{name}", text)
    assert module.main() == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert said.count(f"CANDOR_{name}") <= 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TLS_CERT": "/none", "TLS_KEY": "/none"}, "CANDOR_TLS_CERT: /none: No such file"),
        ({"HOST": "nowhere.invalid", **OPEN}, "CANDOR_HOST: expected a name or an address of"),
        ({"HOST": "a..b", **OPEN}, "CANDOR_HOST: host: expected the name of a host, got 'a..b'"),
        ({"HOST": "192.0.2.1", **OPEN}, "CANDOR_GRPC_PORT: port 0 on 192.0.2.1 cannot be used"),
        ({"TLS_CERT": "/dev/zero", "TLS_KEY": "/none"}, "/dev/zero: expected a file, got a device"),
        (
            {"OIDC_ISSUER": "i", "OIDC_AUDIENCE": "a", "OIDC_JWKS": "/none"},
            "CANDOR_OIDC_JWKS: /none: No such file",
        ),
    ],
)
def test_what_a_start_needs_is_named_with_its_setting(
    variables: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in {"GRPC_PORT": "0", "REST_PORT": "0", **variables}.items():
        monkeypatch.setenv(f"CANDOR_{name}", text)
    assert module.main() == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://ada:{SECRET}@[bad", "got http://***@[bad"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://ada:{SECRET}@h:x", "got http://***@h:x"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"a=b,{SECRET}", "part 2: expected NAME=VALUE"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc", "OTEL_EXPORTER_OTLP_TIMEOUT: expected a number"),
    ],
)
def test_variables_of_a_library_end_the_start_in_one_line(
    variable: str,
    text: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not variable.endswith("ENDPOINT"):
        monkeypatch.setenv("CANDOR_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, text)
    assert module.main() == 2
    said = "".join(capsys.readouterr())
    assert "candor.gateway: tracing: " in said
    assert expected in said
    assert SECRET not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("field", SECRET_FIELDS)
def test_settings_as_text_show_no_secret(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SECRET_FIELDS) == 4
    user = "" if field == "oidc_jwks" else f"ada:{SECRET}@"
    scheme = "rediss" if field == "shared_url" else "https"
    url = f"{scheme}://{user}host:4317/x?token={SECRET}"
    monkeypatch.setenv(f"CANDOR_{field.upper()}", url)
    settings = read_settings()
    assert getattr(settings, field).reveal() == url
    for text in (repr(settings), str(settings), settings.model_dump_json(), f"{settings!r}"):
        assert SECRET not in text


@pytest.mark.parametrize("url", ["https://ada:hunter2@issuer/keys", "https://issuer:hunter2/keys"])
def test_address_of_keys_with_a_password_is_refused_without_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDOR_OIDC_JWKS", url)
    with pytest.raises(BadSettings, match="oidc_jwks: expected") as caught:
        read_settings()
    assert f":{SECRET}@" not in str(caught.value)


def test_issuer_that_does_not_answer_is_logged_without_its_query(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = KeySource(f"http://127.0.0.1:1/keys?token={SECRET}")
    with pytest.raises(BadToken):
        asyncio.run(source.find("any"))
    assert "127.0.0.1:1" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@127.0.0.1:1/x?password={SECRET}",
        f"postgresql://ada:{SECRET}@127.0.0.1:port/x",
        f"postgresql://ada:{SECRET[:3]}/{SECRET[3:]}@127.0.0.1/x",
        f"postgresql://127.0.0.1:1/x?hunter2={SECRET}&{SECRET}",
        f"mysql://ada:{SECRET}@db/x",
        f"sqlite:////dev/null/x?key={SECRET}",
        f"postgresql://ada:a@{SECRET}@127.0.0.1:1/x",
        f"postgresql://127.0.0.1:1/x?user=ada&password=a@{SECRET}",
        f"postgresql://ada:a {SECRET}@127.0.0.1:port/x",
        f"postgresql://ada:a'{SECRET}<@127.0.0.1:port/x",
        f"postgresql://ada:%40{SECRET}@127.0.0.1:1/x",
        f"postgresql:/ada:{SECRET}@127.0.0.1/x",
        f"postgresql:ada:{SECRET}@127.0.0.1/x",
        f"ada:{SECRET}@127.0.0.1/x",
        f"host=127.0.0.1 user=ada password={SECRET}",
        f"host=127.0.0.1 password='a {SECRET}' dbname=a/b",
    ],
)
def test_store_that_cannot_be_opened_shows_no_secret(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # none of them is the path of a file
    with pytest.raises(StoreError, match="store: ") as caught:
        open_store(url, patience_seconds=1.0)
    shown = str(caught.value).replace("invalid URI query parameter", "")
    assert SECRET not in shown or f'"{SECRET}"' in shown  # the name of a parameter is no secret
    assert list(tmp_path.iterdir()) == []


def test_failed_statement_shows_no_values(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store.sqlite"))
    with store.reading() as session, pytest.raises(Exception, match="no such table") as caught:
        session.connection().exec_driver_sql("INSERT INTO none VALUES (?)", (SECRET,))
    store.close()
    assert SECRET not in str(caught.value)


def test_log_hides_what_a_library_quotes() -> None:
    try:
        raise ValueError(f"cannot parse {URLS[0]}")
    except ValueError as err:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "%s", (err,), (ValueError, err, err.__traceback__)
        )
    assert SECRET not in WithoutSecrets("%(asctime)s %(message)s").format(record)
    record.exc_text = None
    line = json.loads(JsonLines().format(record))
    assert "postgresql://***@db/x" in line["message"]
    assert SECRET not in json.dumps(line)


def test_collector_gets_credentials_that_no_log_shows(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with collecting() as collector:
        endpoint = collector.endpoint.replace("://", f"://ada:{SECRET}@") + f"/?token={SECRET}"
        spans = _exported(endpoint)
        assert len(collector.trace(spans)) == 1
    _exported(f"http://ada:{SECRET}@127.0.0.1:1")
    assert "127.0.0.1:1" in caplog.text
    assert SECRET not in caplog.text


def _exported(endpoint: str) -> str:
    """The trace of one span that was sent there."""
    provider: TracerProvider = tracing_export.exporting_provider("test", endpoint)
    with provider.get_tracer("test").start_as_current_span("one") as span:
        number = span.get_span_context().trace_id
    provider.force_flush(1000)
    provider.shutdown()
    return f"{number:032x}"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"REST_PORT": "9"}, "Connection refused"),
        ({"REST_PORT": "x"}, "CANDOR_REST_PORT: expected a whole number, got 'x'"),
        ({"HOST": "nowhere.invalid", **OPEN}, "Name or service not known"),
        ({"HOST": "a..b", **OPEN}, "host: expected the name of a host"),
    ],
)
def test_probe_says_in_one_line_why_nothing_answers(
    variables: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(f"CANDOR_{name}", text)
    assert probe.main() == 1
    assert capsys.readouterr().err.startswith(f"candor.gateway.probe: {said}")
