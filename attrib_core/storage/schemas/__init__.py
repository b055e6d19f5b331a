"""Schemas of all tables, with the meaning and unit of each column."""
