"""The results for people: the dictionary of the results file as Markdown."""

from benchmarks.report.document import markdown

__all__ = ["markdown"]
