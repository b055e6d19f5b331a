"""Why a rule would run again: what its params and fingerprints cover, held against a finished run.

`table` is what users can rely on (a change, and the rules that it touches), `asking` what the workflow
says now, `comparing` what differs from the record of each job, `commands` the command line.
"""
