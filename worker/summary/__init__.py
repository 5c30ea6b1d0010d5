"""What a radiologist sees beside the report: a summary page, and the key slices with where the evidence comes from.

`material`: from SQL and files. `page`, `heat_map`: drawn. `wording`: in each language. `objects`: as DICOM objects.
"""

from worker.summary.material import Material, gather
from worker.summary.objects import build_object
from worker.summary.page import draw_page

__all__ = ["Material", "build_object", "draw_page", "gather"]
