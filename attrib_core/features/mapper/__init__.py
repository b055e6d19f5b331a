"""Stage `tune`: train mapper heads on train sets by contrastive learning, select them on validation sets.

`tune` is the stage; `tuning_data` and `exemplar_sets` read its data, `initialization` and `whitening` are where
training starts, `trainable_heads` what is trained, `contrastive_training` the loss and its batches,
`average_precision` and `selection` how heads are selected.
"""
