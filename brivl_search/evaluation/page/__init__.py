"""`eval --report`: an evaluation as one self-contained page, which works from a disk and needs no network.

content   what is on it: curves, histograms, calibration, the worst and the best queries
charts    the charts as small SVG that takes its colours from the page, light or dark
page      the page, by jinja2 (torch brings it along), which escapes whatever captions and file names hold
"""

from brivl_search.evaluation.page.page import write_page

__all__ = ["write_page"]
