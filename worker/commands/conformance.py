"""`reticula conformance`: what this installation can do, as DICOM asks for it."""

from worker import console
from worker.commands.context import application


def conformance() -> None:
    """Print the DICOM Conformance Statement of this installation, as Markdown.

    Example: reticula conformance > conformance.md
    """
    from worker.conformance import statement

    console.out.file.write(statement(application().settings))
