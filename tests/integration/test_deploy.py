"""What is shipped for hospitals: checked by linters, since no container engine runs where the tests run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import CHECKOUT
from tests.servers import need
from worker.queues import QUEUES
from worker.sections import DimseSettings
from worker.settings import load_settings

DEPLOY = CHECKOUT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())


def test_the_sample_settings_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETICULA_CONFIG", str(DEPLOY / "reticula.toml"))
    settings = load_settings()
    assert settings.peers, "a hospital lets in named peers only"
    assert settings.destinations[0].required


def test_the_orthanc_to_try_it_on_is_a_peer_and_a_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETICULA_CONFIG", str(DEPLOY / "reticula.orthanc.toml"))
    settings = load_settings()
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    orthanc = compose["services"]["orthanc"]
    (peer,), (destination,) = settings.peers, settings.destinations
    assert str(peer.address) == orthanc["networks"]["default"]["ipv4_address"]
    assert isinstance(destination, DimseSettings)
    assert destination.host in compose["services"]
    assert peer.ae_title == destination.ae_title == orthanc["environment"]["ORTHANC__DICOM_AET"]
    (modality,) = json.loads(orthanc["environment"]["ORTHANC__DICOM_MODALITIES"]).values()
    assert modality == [settings.listener.ae_title, "listener", settings.listener.port]
    assert modality[1] in compose["services"]


def test_yaml_is_clean_and_the_services_run_our_commands() -> None:
    rules = "{extends: default, rules: {document-start: disable, line-length: {max: 120}}}"
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "-s", "-d", rules, str(DEPLOY / "compose.yaml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    assert {"listener", "sweep", "redis", "postgres"} <= services.keys()
    assert services["orthanc"]["profiles"] == ["pacs"]
    served = [service["command"][2] for service in services.values() if service.get("command", [""])[0] == "work"]
    assert sorted(served) == sorted(QUEUES)
    for service in services.values():
        for name in service.get("depends_on", {}):
            assert name in services


def test_the_image_runs_without_root_and_without_torch() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    final = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM")) :]
    assert "USER reticula" in final
    assert 'ARG EXTRAS=""' in lines
    copied = {line.split()[1] for line in lines if re.match(r"COPY [a-z]+ ", line)}
    assert {"alembic", "models", "pacs", "training", "worker"} <= copied
    for name in copied:
        assert (CHECKOUT / name).exists(), name


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_understood_by_systemd(unit: Path, tmp_path: Path) -> None:
    analyze = need("systemd-analyze", "systemd")
    # The program and user of a hospital's machine are not here: any program and user will do.
    for other in UNITS:
        text = other.read_text(encoding="utf-8")
        text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text).replace("User=reticula", "User=root")
        (tmp_path / other.name).write_text(text.replace("Group=reticula", "Group=root"), encoding="utf-8")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / unit.name)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "reticula" in line]
    assert ours == []


def test_the_ci_script_is_clean() -> None:
    subprocess.run([need("shellcheck", "shellcheck"), str(CHECKOUT / ".ci" / "run")], check=True)
