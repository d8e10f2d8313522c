"""The demo's report: one self-contained HTML page with pictures drawn in SVG."""

from tiercel.demo.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
