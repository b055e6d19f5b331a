"""What a run of a config will take, before it runs, and how far a run is: `plan` and `status`.

`counts` says how many of each thing a config asks for, `jobs` which jobs make them and which files those
leave; `sizes` how many bytes that is; `rates` what a unit of work took where it was measured. Nothing here
imports torch: shapes come from the headers of files.
"""
