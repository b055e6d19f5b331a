"""Stage `embed`: compute the embeddings of a table of images with an encoder, and read them back.

`embed` is the stage, `encode` applies an encoder to rows of images and text, `encoder_protocol` is the interface of an
encoder, `image_rows` reads what an encoder encodes, `embedding_tables` reads and samples tables of embeddings.
"""
