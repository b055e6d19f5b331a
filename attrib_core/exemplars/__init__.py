"""Stage `exemplars`: which pictures of the pool the models are customized on, and in which split.

`plan.plan` is the stage; `sampling`, `splitting` and `exclusion` are its three decisions.
"""
