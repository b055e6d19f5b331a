"""Stage `customize`: one delta of the base model for each exemplar set, many trained at a time.

`part.customize` is the stage, `prior.images` the one before it that makes the
pictures for prior preservation.
"""
