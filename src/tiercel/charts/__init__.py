"""Pictures and pages of reports: SVG and HTML as strings, nothing fetched, light and dark. Imports nothing of Tiercel.

Those who report (`demo`, `tune`) turn their results into numbers and words; here these become marks.
"""

from tiercel.charts.page import render_figure, render_legend, render_page, render_table, render_tile
from tiercel.charts.svg import Scale, drawing, element, path, text, tooltip

__all__ = [
    "Scale",
    "drawing",
    "element",
    "path",
    "render_figure",
    "render_legend",
    "render_page",
    "render_table",
    "render_tile",
    "text",
    "tooltip",
]
