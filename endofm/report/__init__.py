"""One HTML page about a run: what its curves say, and which clips its features find alike."""

from endofm.report.page import write_report

__all__ = ["write_report"]
