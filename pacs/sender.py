"""A C-STORE client: DICOM files to a storage SCP, as a modality or a PACS sends them."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pynetdicom import AE

from pacs.errors import Refused, Retry, Unreadable
from pacs.head import read_head


def find_instances(folder: Path) -> list[Path]:
    """Return the DICOM files below a folder, DICOMDIR aside."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _header(path) is not None]


def send(
    paths: Sequence[Path],
    *,
    host: str,
    port: int,
    ae_title: str,
    calling_ae: str,
    sent: Callable[[int], None] = lambda _count: None,
) -> None:
    """Send files over one association, in their order and as they are encoded; `sent` is told how many went.

    Raises Retry where there is no association, Refused where an instance is not taken.
    """
    entity = AE(calling_ae)
    for sop_class, syntax in _contexts(paths):
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate(host, port, ae_title=ae_title, max_pdu=0)
    if not association.is_established:
        raise Retry(f"{ae_title} at {host}:{port} takes no association.")
    try:
        for count, path in enumerate(paths, start=1):
            status = association.send_c_store(path).get("Status")
            if status is None:
                raise Retry(f"{ae_title} at {host}:{port} ended the association.")
            if status != 0x0000:
                raise Refused(f"{ae_title} answered 0x{status:04X} to {path.name}.")
            sent(count)
    finally:
        association.release()


def _contexts(paths: Iterable[Path]) -> list[tuple[str, str]]:
    headers = (_header(path) for path in paths)
    return sorted({(str(h.SOPClassUID), str(h.file_meta.TransferSyntaxUID)) for h in headers if h is not None})


def _header(path: Path) -> Dataset | None:
    try:
        dataset = read_head(path, ["SOPClassUID", "SOPInstanceUID"])
    except (InvalidDicomError, Unreadable, OSError, ValueError, EOFError, zlib.error):
        return None
    return dataset if "SOPInstanceUID" in dataset and "TransferSyntaxUID" in dataset.file_meta else None
