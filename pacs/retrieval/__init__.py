"""Finding and fetching: an archive is asked for studies and series, and hands over their instances.

`query`: what is asked and answered. `receiver`: what becomes of an instance. `dicomweb`, `dimse`: the two ways.
"""

from pacs.retrieval.dicomweb import DicomwebSource
from pacs.retrieval.dimse import DimseSource
from pacs.retrieval.query import FoundSeries, FoundStudy, Source, StudyQuery
from pacs.retrieval.receiver import Receiver

__all__ = ["DicomwebSource", "DimseSource", "FoundSeries", "FoundStudy", "Receiver", "Source", "StudyQuery"]
