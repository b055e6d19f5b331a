"""Embed the pictures of one table: a part of the pool, a part of the queries, or the exemplars."""

from attrib_core.jobs import job

with job(snakemake):
    from pathlib import Path

    from attrib_core import embedding, tables
    from attrib_core.embedding import features, part
    from attrib_core.store import parts, places

    images, output = Path(snakemake.input.images), Path(snakemake.output.embeddings)
    params, run = snakemake.params, Path(snakemake.params.run)
    encoder = features.load(params.encoder, where=f"encoders.{snakemake.wildcards.encoder}")
    with places.in_use(run):
        conditions = {"encoder": params.encoder, "code": params.feature_code}
        read = {"ids": params.ids, "words": params.words, "encoder": encoder}
        asked = part.wanted(images, by=params.pieces["by"], conditions=conditions, **read)
        with part.claimed(asked, run):
            embedded = part.embed(
                images,
                asked,
                **read,
                run=run,
                job=f"{snakemake.rule}/{'-'.join(snakemake.wildcards)}",
                threads=snakemake.resources.get("decoding_threads", -1),
            )
            with tables.writer(output, embedding.schema(encoder)) as sink:
                for table in embedded:
                    sink.write(table)
            parts.settle(output, part.EMBEDDINGS, [(one.key, len(one.names)) for one in asked], run=run)
