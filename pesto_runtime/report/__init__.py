"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

from pesto_runtime.report.facts import PortText, ReportData, ReportImage
from pesto_runtime.report.page import write_report

__all__ = ["PortText", "ReportData", "ReportImage", "write_report"]
