"""Plots of the report: drawn by matplotlib, shown as SVG."""
