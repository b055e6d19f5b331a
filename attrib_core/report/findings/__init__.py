"""Claims of the report: a table of questions with value, interval, p-values and verdict."""
