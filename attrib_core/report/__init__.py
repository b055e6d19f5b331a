"""The report of a run: one self-contained HTML page, its plots and its tables as CSV."""
