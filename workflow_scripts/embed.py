"""Embed the pictures of one table: a part of the pool, a part of the queries, or the exemplars."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import embedding, embedding_part, features, tables
    from attrib_core.store import parts, places

    images, output = Path(snakemake.input.images), Path(snakemake.output.embeddings)
    params, run = snakemake.params, Path(snakemake.params.run)
    encoder = features.load(params.encoder, where=f"encoders.{snakemake.wildcards.encoder}")
    with places.in_use(run):
        conditions = {"encoder": params.encoder, "code": params.feature_code}
        asked = embedding_part.wanted(images, ids=params.ids, by=params.pieces["by"], conditions=conditions)
        embedded = embedding_part.embed(
            images,
            asked,
            ids=params.ids,
            encoder=encoder,
            run=run,
            job=f"{snakemake.rule}/{'-'.join(snakemake.wildcards)}",
            threads=snakemake.resources.get("decoding_threads", -1),
        )
        with tables.writer(output, embedding.schema(encoder)) as sink:
            for table in embedded:
                sink.write(table)
        parts.settle(output, embedding_part.EMBEDDINGS, [(one.key, len(one.names)) for one in asked], run=run)
