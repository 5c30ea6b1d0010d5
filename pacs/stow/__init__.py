"""STOW-RS, the Store transaction of DICOMweb (PS3.18 chapter 10.5): parts → intake → answer.

The bytes come from whoever speaks HTTP; nothing here knows a server.
"""

from pacs.stow.answer import Answer, as_json, as_xml
from pacs.stow.parts import Malformed, PartReader
from pacs.stow.store import StoreRequest

__all__ = ["Answer", "Malformed", "PartReader", "StoreRequest", "as_json", "as_xml"]
