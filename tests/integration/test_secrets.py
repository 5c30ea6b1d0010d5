"""Passwords, tokens and keys: told of where everybody may read them, and found in no output and no process list."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.installation import Installation
from tests.servers import free_port
from worker.errors import SettingsError
from worker.secrets import check_secrets, read_secret
from worker.settings import load_settings

SECRET = "Topsecret"

HOLDING = [
    f'database_url = "postgresql+psycopg://reticula:{SECRET}@127.0.0.1/x"\n',
    f'broker_url = "redis://:{SECRET}@127.0.0.1/0"\n',
    f'[[destinations]]\nname="a"\nkind="dicomweb"\nurl="https://h"\nauth={{user="u", password="{SECRET}"}}\n',
    f'[[destinations]]\nname="a"\nkind="dicomweb"\nurl="https://h"\nauth={{token="{SECRET}"}}\n',
]


@pytest.mark.parametrize("content", HOLDING)
def test_settings_with_a_password_that_everybody_reads(content: str) -> None:
    file = Path("reticula.toml")
    file.write_text(content, encoding="utf-8")
    file.chmod(0o644)
    with pytest.raises(SettingsError, match=r"everybody on this machine may read reticula\.toml") as caught:
        check_secrets(load_settings())
    assert SECRET not in str(caught.value)
    file.chmod(0o640)
    assert "none of which" in check_secrets(load_settings())


def test_settings_without_a_secret_may_be_read() -> None:
    file = Path("reticula.toml")
    file.write_text('broker_url = "redis://127.0.0.1/0"\n', encoding="utf-8")
    file.chmod(0o644)
    assert check_secrets(load_settings()) == "none in files"


def test_files_that_settings_name(tmp_path: Path) -> None:
    names = ("token", "password", "key", "tls.pem")
    for name in names:
        (tmp_path / name).write_text(f" {SECRET} \nnot this\n", encoding="utf-8")
        (tmp_path / name).chmod(0o644)
    Path("reticula.toml").write_text(
        f"""[privacy]
key_file = "{tmp_path}/key"
[listener.tls]
certificate = "c"
key = "{tmp_path}/tls.pem"
authorities = "a"
[[destinations]]
name = "a"
kind = "dicomweb"
url = "https://h"
auth = {{ user = "u", password_file = "{tmp_path}/password" }}
[[destinations]]
name = "b"
kind = "dicomweb"
url = "https://h"
auth = {{ token_file = "{tmp_path}/token" }}
""",
        encoding="utf-8",
    )
    with pytest.raises(SettingsError) as caught:
        check_secrets(load_settings())
    assert all(str(tmp_path / name) in str(caught.value) for name in names)
    assert read_secret(tmp_path / "token") == SECRET
    (tmp_path / "token").write_text("\n")
    for path in (tmp_path / "token", tmp_path / "missing"):
        with pytest.raises(SettingsError):
            read_secret(path)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    web = f'[[destinations]]\nname="w"\nkind="dicomweb"\nurl="http://127.0.0.1:{free_port()}"\n'
    made = Installation(
        tmp_path / "installation",
        f'database_url = "postgresql+psycopg://reticula:{SECRET}@127.0.0.1:{free_port()}/x"\n'
        f'broker_url = "redis://:{SECRET}@127.0.0.1:{free_port()}/0"\n{web}auth={{user="u", password="{SECRET}"}}\n',
    )
    yield made
    made.close()


def test_no_output_and_no_process_list_shows_a_password(installation: Installation) -> None:
    installation.config.chmod(0o644)
    said = []
    for command in (["check"], ["exams", "list"], ["db", "upgrade"], ["models", "list"], ["up"]):
        done = installation.run(*command, check=False)
        assert done.returncode == 1, command
        said.append(done.stdout + done.stderr)
    assert "FAIL  secrets: everybody" in said[0]
    for service in ("sweep", "listen"):
        process = installation.start(service)
        assert SECRET not in " ".join(psutil.Process(process.pid).cmdline())
        installation.stop(process)
        said.append(installation.log(service))
    assert not [each for each in said if SECRET in each]
