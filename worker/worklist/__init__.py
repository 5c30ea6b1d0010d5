"""The worklist: reports read back from the PACS, not from our database, the most urgent first.

`entries`: what stands in it and in which order. `page`: as one HTML file.
"""

from worker.worklist.entries import Entry, Worklist, as_json, gather
from worker.worklist.page import incomplete_sentence, reason, unread_mark, window_sentence, write_page

__all__ = [
    "Entry",
    "Worklist",
    "as_json",
    "gather",
    "incomplete_sentence",
    "reason",
    "unread_mark",
    "window_sentence",
    "write_page",
]
