"""The report of a run: one self-contained HTML page, its plots as SVG and its tables as CSV."""
