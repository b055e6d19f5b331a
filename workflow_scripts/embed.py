"""Embed the images of one table: a part of the pool, a part of the queries, or the exemplars."""

from attrib_core.runtime.job import job

with job(snakemake):
    from pathlib import Path

    from attrib_core.features.embedding import embed, embedding_tables, encode
    from attrib_core.storage import tables
    from attrib_core.storage.store import layout, locks, make_missing, parts

    images, output = Path(snakemake.input.images), Path(snakemake.output.embeddings)
    params, run = snakemake.params, Path(snakemake.params.run)
    encoder = encode.load_encoder(params.encoder, where=f"encoders.{snakemake.wildcards.encoder}")
    with locks.shared(run):
        conditions = {"encoder": params.encoder, "code": params.feature_code}
        read = {
            "id_column": params.id_column,
            "text_column": params.text_column,
            "encoder": encoder,
        }
        wanted = embed.find_pieces(images, by=params.pieces["by"], conditions=conditions, **read)
        job_name = f"{snakemake.rule}/{'-'.join(snakemake.wildcards)}"
        stored = embed.stored_results(wanted, run=run, job=job_name)
        with make_missing.all_claimed(stored, "embeddings"):
            threads = snakemake.resources.get("decoding_threads", -1)
            embedded = embed.embed(images, wanted, stored, **read, threads=threads)
            with tables.writer(output, embedding_tables.schema(encoder)) as sink:
                for table in embedded:
                    sink.write(table)
            parts.consolidate(
                output, layout.EMBEDDINGS, [(piece.key, len(piece.names)) for piece in wanted], run=run
            )
