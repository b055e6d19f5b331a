"""Stage `report`: one self-contained HTML page, its plots, and its tables as CSV."""
