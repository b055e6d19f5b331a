"""Fingerprint the code that a result depends on, and explain why a rule would run again."""
