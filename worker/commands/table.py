"""The commands by name, each loaded when it is used: a list of them needs neither database nor network."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

# Where each is, and the first sentence of what it says of itself.
COMMANDS = {
    "demo": ("demo:demo", "Send phantom exams through a whole installation, and check the reports that come back."),
    "up": (
        "serve:up",
        "Run listener, workers, sweep and, where it is enabled, the HTTP server on this machine, in the foreground.",
    ),
    "listen": ("serve:listen", "Take in instances by C-STORE. Needs neither database nor broker."),
    "serve": ("serve:serve", "Take in instances by STOW-RS over HTTP. Needs neither database nor broker."),
    "work": (
        "serve:work",
        "Classify exams and deliver reports; with the queue 'training', retrain models too.",
    ),
    "sweep": ("serve:sweep", "Assemble series, wake what waits, and take back what dead workers hold."),
    "pause": (
        "pause:pause",
        "Begin no new exam and no new delivery; what is under way ends, and instances still come in.",
    ),
    "drain": ("pause:drain", "Take in nothing new, and wait until everything that has come is reported."),
    "resume": ("pause:resume", "Go on after `pause` or `drain`."),
    "pull": (
        "pull:pull",
        "Ask an archive for studies, show what is taken, and fetch it. Asked again it goes on where it stopped.",
    ),
    "worklist": (
        "worklist:worklist",
        "List what the PACS has been told: UIP first, then NSIP, then indeterminate, of each the oldest first.",
    ),
    "conformance": (
        "conformance:conformance",
        "Print the DICOM Conformance Statement of this installation, as Markdown.",
    ),
    "check": (
        "check:check",
        "Check settings, database, broker, model, disk and every destination; fail if any of them fails.",
    ),
    "backup": (
        "backup:backup",
        "Save database, model bundles and undelivered reports in one file, while work goes on.",
    ),
    "restore": (
        "backup:restore",
        "Bring a backup back into an empty database and data_dir; SQLite or PostgreSQL, whichever it came from.",
    ),
    "phantom": (
        "phantom:phantom",
        "Write phantom chest CT exams with a UIP-like or an NSIP-like disease, another one, or none.",
    ),
    "train": ("train:train", "Train a network and write a bundle. Ctrl-C keeps the best epoch so far."),
    "evaluate": (
        "evaluate:evaluate",
        "Measure a model on labelled slices, by slice and by exam, and ask it what it says of what it must not name.",
    ),
    "compare": (
        "compare:compare",
        "Train the architectures on the same slices and say which is best, by slice and by patient.",
    ),
    "retrain": (
        "retrain:retrain",
        "Train a candidate from the active model, with base data and labelled exams.",
    ),
    "exams": ("exams:app", "The exams."),
    "models": ("models:app", "The models."),
    "rules": ("rules:app", "The rules about which exams are taken."),
    "db": ("database:app", "The database."),
}


class Commands(TyperGroup):
    """Shows the commands as the table has them, and loads the one that is used."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=said) for name, (_place, said) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command itself, not what stands for it in the list."""
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and load(name or ""), rest


def load(name: str) -> Any:
    """Load a command of the table."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(import_module(f"worker.commands.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(name)(found)
        found = alone
    command = get_command(found)
    command.name = name
    return command
