"""Where reports go: a PACS reached by C-STORE (`dimse`) or by STOW-RS (`dicomweb`)."""

from pacs.destinations.destination import Destination, Offer, Sent
from pacs.destinations.dicomweb import DicomwebDestination
from pacs.destinations.dimse import DimseDestination

__all__ = ["Destination", "DicomwebDestination", "DimseDestination", "Offer", "Sent"]
