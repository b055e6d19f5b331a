"""What is dear to make, kept once for all runs beside them, under keys of all that it depends on.

`places` says where it stands, who refers to it and who is at work; `claims` who makes what just now; `pieces` are
rows of tables under a key each, `parts` the tables that hold them; `collecting` finds what nothing refers to;
`commands` is `python -m attrib_core store`.
"""
