"""Embed the pictures of one table: a part of the pool, a part of the queries, or the exemplars."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import embedding, tables

    encoder = embedding.load(snakemake.params.encoder, where=f"encoders.{snakemake.wildcards.encoder}")
    embedded = embedding.embed(
        Path(snakemake.input.images),
        ids=snakemake.params.ids,
        words=snakemake.params.words,
        encoder=encoder,
        threads=snakemake.resources.get("decoding_threads", -1),
    )
    with tables.writer(Path(snakemake.output.embeddings), embedding.schema(encoder)) as sink:
        for table in embedded:
            sink.write(table)
