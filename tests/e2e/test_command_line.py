"""The command line as scripts use it: exit codes, --json, --help, the installed wheel, the demo."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from models.bundle import open_bundle
from tests.bundles import another_version
from tests.conftest import CHECKOUT
from tests.installation import Installation
from training.phantom import PhantomExam
from worker.commands import table
from worker.registry import demo_bundle

COMMANDS = [
    ["demo"], ["up"], ["listen"], ["work"], ["sweep"], ["check"], ["phantom"], ["train"], ["db", "upgrade"],
    ["evaluate"], ["compare"], ["retrain"], ["exams", "label"], ["models", "rollback"],
    ["exams", "list"], ["exams", "show"], ["exams", "retry"], ["exams", "resend"], ["exams", "reprocess"],
    ["models", "list"], ["models", "show"], ["models", "import"], ["models", "promote"],
]  # fmt: skip


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "installation")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example(command: list[str]) -> None:
    node = table.load(command[0])
    for name in command[1:]:
        node = node.commands[name]
    assert f"Example: reticula {command[0]}" in (node.help or "") or "reticula --config" in (node.help or "")


def test_the_list_of_commands_says_what_they_say() -> None:
    for name, (_place, said) in table.COMMANDS.items():
        first = " ".join((table.load(name).help or "").split("\n\n")[0].split())
        assert first == said, name
    listed = subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", "--help"], capture_output=True, check=True, text=True
    )
    assert all(f" {name} " in listed.stdout for name in table.COMMANDS)


def test_the_list_of_commands_loads_none_of_them() -> None:
    heavy = ("sqlalchemy", "pydicom", "highdicom", "numpy", "pydantic", "torch", "openvino", "celery")
    code = (
        "import sys, worker.main\n"
        "try: worker.main.app(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_misspelt_command_is_answered_with_the_right_one() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", "trian"], capture_output=True, check=False, text=True
    )
    assert done.returncode == 2
    assert "Did you mean 'train'" in done.stderr


def test_exit_codes_and_sentences(installation: Installation) -> None:
    unknown = installation.run("nonsense", check=False)
    assert unknown.returncode == 2
    installation.run("db", "upgrade")
    missing = installation.run("exams", "show", "1.2.3", check=False)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "There is no series 1.2.3: see 'reticula exams list'.\n"
    bundle = installation.run("models", "import", "/nowhere", check=False)
    assert bundle.returncode == 1
    assert bundle.stderr.startswith("/nowhere holds no readable bundle.json")
    wrong = installation.run("--config", "/nowhere.toml", "exams", "list", check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert installation.json("exams", "list") == []
    assert installation.json("models", "list") == []


def test_without_tables_there_is_one_sentence(installation: Installation) -> None:
    done = installation.run("exams", "list", check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "run 'reticula db upgrade'" in done.stderr


def test_check_says_what_is_missing(installation: Installation) -> None:
    done = installation.run("check", check=False)
    assert done.returncode == 1
    assert "FAIL  database" in done.stdout
    installation.run("db", "upgrade")
    done = installation.run("check", check=False)
    assert "FAIL  model: none is active" in done.stdout
    assert "FAIL  destinations: none is configured" in done.stdout
    imported = installation.run("models", "import", "demo").stdout
    said = "Model demo 2.3 is imported (active).\nIt gives verdicts on phantoms like those that it knows"
    assert imported.startswith(said)
    assert installation.run("models", "import", "demo").stdout == imported
    done = installation.run("check", check=False)
    assert "ok    model: demo 2.3, mobilenet_v2, knows phantoms" in done.stdout
    (model,) = installation.json("models", "list")
    assert (model["name"], model["version"], model["active"]) == ("demo", "2.3", True)
    assert "Knows phantoms only" in installation.run("models", "show", "demo").stdout


def test_the_demo_runs_and_checks_itself(tmp_path: Path, phantoms: tuple[Path, list[PhantomExam]]) -> None:
    folder = tmp_path / "demo"
    more = phantoms[0] / phantoms[1][0].folder
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", "demo", "--dir", str(folder), "--from", str(more)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PHANTOM-") == 3
    assert len(list((folder / "pictures").glob("*.png"))) == 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (folder / "pictures").glob("*.png"))
    assert (folder / "data" / "reticula.sqlite3").is_file()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").touch()
    refused = subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", "demo", "--dir", str(precious)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert (precious / "thesis.txt").exists()


def test_the_installed_wheel_migrates_and_serves(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(CHECKOUT)], check=True)
    (wheel,) = tmp_path.glob("reticula-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert not [name for name in names if name.startswith(("alembic/", "tests/", "deploy/"))]
    assert "worker/_alembic/versions/0001_first_tables.py" in names
    assert "models/demo/network.bin" in names
    installation = Installation(tmp_path / "installation", PYTHONPATH=str(tmp_path / "site"))
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import worker; print(worker.__file__)"],
        env=installation.environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(tmp_path / "site"))
    installation.run("db", "upgrade")
    installation.run("models", "import", "demo")
    assert installation.json("models", "list")[0]["active"] is True
    up = installation.start("up")
    assert installation.stop(up) == 0


def test_labels_and_rollback_by_command(installation: Installation, tmp_path: Path) -> None:
    installation.run("db", "upgrade")
    installation.run("models", "import", "demo")
    second = another_version(open_bundle(demo_bundle()), tmp_path / "second", "x")
    installation.run("models", "import", str(second.folder))
    assert "is active" in installation.run("models", "promote", "demo x").stdout
    assert "demo 2.3 is active again" in installation.run("models", "rollback").stdout
    refused = installation.run("models", "rollback", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    unknown = installation.run("exams", "label", "1.2.3", "UIP", check=False)
    assert (unknown.returncode, "There is no series 1.2.3" in unknown.stderr) == (1, True)
    assert installation.run("exams", "label", "1.2.3", check=False).returncode == 2
    nothing = installation.run("retrain", check=False)
    assert (nothing.returncode, "nothing to learn from" in nothing.stderr) == (1, True)


def test_settings_are_inherited_and_json_is_json(installation: Installation, tmp_path: Path) -> None:
    installation.run("db", "upgrade")
    environment = {**os.environ, "RETICULA_DATA_DIR": str(installation.data)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", "exams", "list", "--json"],
        env=environment, capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(done.stdout) == []
