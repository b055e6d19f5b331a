"""Claims of the report: a table of questions with value, interval, p-value and verdict."""
