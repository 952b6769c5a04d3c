from __future__ import annotations

import base64

import pytest

from headrace.cli import connection
from headrace.cli.problems import UsageProblem
from headrace.cli.serve import known_variables, load_settings, refuse_unknown

_MASTER_KEY = base64.b64encode(bytes(32)).decode()
_TOKEN = "t" * 32


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    variables = {
        "HEADRACE_SERVICE_TOKEN": _TOKEN,
        "HEADRACE_MASTER_KEY": _MASTER_KEY,
        "HEADRACE_PARTITIONS": "16",
        "HEADRACE_HTTP_PORT": "18080",  # of ingest alone: one environment may serve all services
        "PATH": "/bin",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.mark.parametrize("service", ["ingest", "identity", "audience", "sync", "console"])
def test_every_service_takes_the_same_environment(service: str, environment: dict[str, str]) -> None:
    settings = load_settings(service, environment)
    assert settings.partitions == 16
    assert settings.service_token.get_secret_value() == _TOKEN


def test_an_unknown_service_is_refused() -> None:
    with pytest.raises(UsageProblem, match="there is no service 'sink': choose one of ingest, identity, audience"):
        load_settings("sink", {})


def test_a_misspelt_setting_is_refused_with_what_was_meant(environment: dict[str, str]) -> None:
    environment |= {"HEADRACE_PARTITION": "8", "headrace_mystery": "?"}
    with pytest.raises(UsageProblem) as refused:
        load_settings("console", environment)
    assert refused.value.status == 2
    assert str(refused.value) == (
        "unknown setting HEADRACE_PARTITION: did you mean HEADRACE_PARTITIONS?; "
        "unknown setting headrace_mystery: unset it"
    )


def test_settings_of_other_services_and_of_the_command_line_are_known() -> None:
    assert {"HEADRACE_HTTP_PORT", "HEADRACE_ARCHIVE_DIR", "HEADRACE_MONGOD", "HEADRACE_HOST"} <= known_variables()
    variables = {value for name, value in vars(connection).items() if name.endswith("_VARIABLE")}
    assert {"HEADRACE_READY_FILE", "HEADRACE_API_TOKEN"} <= variables <= known_variables()
    refuse_unknown({"HEADRACE_MONGOD": "/bin/mongod", "HEADRACE_ARCHIVE_DIR": "x", "HOME": "/"})


def test_missing_and_wrong_settings_are_named_without_their_values(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_MASTER_KEY")
    monkeypatch.setenv("HEADRACE_SERVICE_TOKEN", "short secret")
    monkeypatch.setenv("HEADRACE_PARTITIONS", "many")
    with pytest.raises(UsageProblem) as refused:
        load_settings("identity", environment)
    text = str(refused.value)
    assert "HEADRACE_MASTER_KEY is not set" in text
    assert "HEADRACE_SERVICE_TOKEN: value should have at least 32 items" in text
    assert "HEADRACE_PARTITIONS: input should be a valid integer" in text
    assert "short secret" not in text
    assert "many" not in text
