"""Stage `synthesize`: pictures by the customized models, and by the base model as the control.

`part.synthesize` is the stage; `requests` says which pictures are asked for.
"""
