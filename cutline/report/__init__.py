"""The report of a run: one HTML file that can be kept, mailed, printed and read on a phone."""

from cutline.report.page import write
from cutline.report.thumbnails import thumbnail_uri

__all__ = ["thumbnail_uri", "write"]
