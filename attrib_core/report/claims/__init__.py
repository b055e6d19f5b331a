"""Findings of the report: question, value, interval, p-value and verdict."""
