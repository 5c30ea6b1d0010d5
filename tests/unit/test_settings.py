"""Variables over the file over defaults, and one sentence for what is wrong."""

from pathlib import Path

import pytest

from worker.errors import SettingsError
from worker.sections import DicomwebSettings, DimseSettings
from worker.settings import load_settings


def test_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert settings.data_dir == Path.cwd() / "reticula-data"
    assert settings.database == f"sqlite:///{Path.cwd()}/reticula-data/reticula.sqlite3"
    assert settings.broker_url is None
    assert settings.language == "en"
    listener = settings.listener
    assert (listener.ae_title, listener.host, listener.port) == ("RETICULA", "127.0.0.1", 11112)
    assert (listener.quiet_seconds, listener.max_wait_seconds) == (30, 1800)


def test_variables_stand_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("reticula.toml").write_text(
        """language = "es"
        [listener]
        port = 104
        ae_title = "UIP WORKER"
        [[peers]]
        ae_title = "PACS"
        address = "10.0.0.1"
        [[destinations]]
        name = "pacs"
        kind = "dimse"
        host = "10.0.0.1"
        port = 104
        ae_title = "PACS"
        [[destinations]]
        name = "web"
        kind = "dicomweb"
        url = "https://pacs/dicom-web"
        required = false
        auth = {user = "u", password = "p"}
        """,
        encoding="utf-8",
    )
    monkeypatch.setenv("RETICULA_LISTENER__PORT", "11113")
    monkeypatch.setenv("RETICULA_DATA_DIR", "/srv/reticula")
    settings = load_settings()
    assert settings.listener.port == 11113
    assert settings.listener.ae_title == "UIP WORKER"
    assert settings.language == "es"
    assert settings.data_dir == Path("/srv/reticula")
    assert settings.peers[0].ae_title == "PACS"
    first, second = settings.destinations
    assert isinstance(first, DimseSettings)
    assert isinstance(second, DicomwebSettings)
    assert second.auth is not None
    assert "p'" not in repr(second.auth.password)


def test_lists_can_be_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETICULA_PEERS", '[{"ae_title": "CT1", "address": "10.0.0.2"}]')
    assert str(load_settings().peers[0].address) == "10.0.0.2"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "[listener]\nport = 99999",
            "The setting listener.port is 99999: it must be at most 65535.",
        ),
        ('language = "fr"', "The setting language is 'fr': it must be 'en', 'pt-BR' or 'es'."),
        ("langage = 'en'", "The setting langage is not known: remove it or mend its name."),
        (
            "[listener]\nae_title = 'MUCH TOO LONG A TITLE'",
            "listener.ae_title is 'MUCH TOO LONG A TITLE': it may have at most 16 characters.",
        ),
        (
            'database_url = "mysql://u:secret@h/d"',
            "The setting database_url must start with postgresql+psycopg:// or sqlite:///; its value is not shown",
        ),
        (
            "[[destinations]]\nname='a'\nkind='dimse'\nport=1\nae_title='A'",
            "The setting destinations[0].host is missing",
        ),
        (
            "[[destinations]]\nname='a'\nkind='ftp'",
            "destinations[0] is what stands there: it must be of kind 'dimse', 'dicomweb'",
        ),
        (
            "[[peers]]\nae_title='A'\naddress='pacs.local'",
            "peers[0].address is 'pacs.local': it must be an IP address.",
        ),
        ("[listener]\nport = 'x'", "The setting listener.port is 'x': it must be a whole number."),
        ("[listener]\nquiet_seconds = 0", "The setting listener.quiet_seconds is 0: it must be more than 0."),
        ("listener = 3", "The setting listener is 3: it must be a table."),
        ("peers = 3", "The setting peers is 3: it must be a list."),
        ("language = ", "is not valid TOML"),
        (
            "[[destinations]]\nname='a'\nkind='dicomweb'\nurl='https://u:secret@h/x'",
            "must hold no user and password, since it is shown",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence(content: str, sentence: str) -> None:
    Path("reticula.toml").write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_sentence_shows_a_password() -> None:
    twice = "[[destinations]]\nname='a'\nkind='dicomweb'\nurl='https://h'\nauth={user='u', password='secret'}\n" * 2
    for content in (
        twice,
        twice.replace("dicomweb", "dicom"),
        twice.replace("user='u', ", ""),
        "broker_url='x://secret@h'",
    ):
        Path("reticula.toml").write_text(content, encoding="utf-8")
        with pytest.raises(SettingsError) as caught:
            load_settings()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["RETICULA_LISTNER__PORT", "RETICULA_LISTENER__PROT", "RETICULA_PORT"])
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "5")
    with pytest.raises(SettingsError, match=f"The variable {name} names no setting"):
        load_settings()


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETICULA_CONFIG", "/nowhere/reticula.toml")
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings()
