"""`reticula models`: the bundles that classify."""

from typing import Annotated

import typer
from rich.table import Table

from worker import audit, console
from worker.commands.context import application
from worker.registry import as_json

app = typer.Typer(no_args_is_help=True, help="The models.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(as_json_: AsJson = False) -> None:
    """List the imported models.

    Example: reticula models list
    """
    versions = application().registry.all()
    if as_json_:
        console.say_json([as_json(version) for version in versions])
        return
    table = Table("name", "version", "architecture", "active", "imported", "sha256")
    for version in versions:
        imported = f"{version.imported_at:%Y-%m-%d %H:%M}"
        active = "active" if version.active else ""
        table.add_row(version.name, version.version, version.architecture, active, imported, version.bundle_sha256[:12])
    console.out.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name, 'name version', or the start of the checksum.")],
    as_json_: AsJson = False,
) -> None:
    """Show a model: its card, or everything with --json.

    Example: reticula models show demo
    """
    registry = application().registry
    with application().database.read() as session:
        version = registry.find(session, name)
    if as_json_:
        console.say_json(as_json(version))
        return
    console.say((registry.folder(version) / "card.md").read_text(encoding="utf-8"))


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="Name, 'name version', or the start of the checksum.")],
) -> None:
    """Make an imported model the active one.

    Example: reticula models promote 'uip-nsip 2'
    """
    version = application().registry.promote(name, actor=audit.person())
    console.say(f"Model {version.name} {version.version} is active.")


@app.command("import")
def import_model(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or 'demo' for the one that comes along.")],
) -> None:
    """Import a bundle. The first one becomes active.

    Example: reticula models import /srv/bundles/uip-nsip-2
    """
    version = application().registry.import_bundle(bundle, actor=audit.person())
    state = "active" if version.active else "not active"
    console.say(f"Model {version.name} {version.version} is imported ({state}).")
