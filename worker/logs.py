"""The log: to stderr, where systemd and containers look, and without a word from a patient's header."""

import logging
import sys
import threading
import traceback
import warnings
from types import TracebackType

from pacs.discreet import said

logger = logging.getLogger(__name__)

_QUIET = ("pydicom", "highdicom", "alembic", "dicomweb_client", "matplotlib", "urllib3", "kombu")


class DiscreetFormatter(logging.Formatter):
    """Writes tracebacks with the places of the code, without the messages of libraries, which quote what they read."""

    def formatException(  # noqa: N802 – the name is logging's
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """Return the traceback of an exception and of those that led to it."""
        parts: list[str] = []
        error = ei[1]
        while error is not None:
            frames = "".join(traceback.format_tb(error.__traceback__))
            parts.insert(0, f"Traceback (most recent call last):\n{frames}{type(error).__name__}: {said(error)}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n\nwhich led to\n\n".join(parts)


def configure() -> None:
    """Log to stderr; without what libraries tell about every step, and without their warnings, which quote values."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(DiscreetFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # It formats whole messages for its log.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    threading.excepthook = _thread_ended


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread is not None else "?"
    if args.exc_value is not None:
        logger.error("Thread %s ended.", name, exc_info=args.exc_value)
