"""Rank the exemplars of every query in the pool, for one encoder and mapper."""

from attrib_core.runtime.job import job
from attrib_core.runtime.progress import progress

with job(snakemake):
    from math import ceil
    from pathlib import Path

    from attrib_core.attribution.ranking import rank
    from attrib_core.features.heads import heads
    from attrib_core.storage import tables

    inputs, outputs, blocks = snakemake.input, snakemake.output, snakemake.params.blocks
    mapper = [Path(path) for path in inputs.mapper]
    queries = tables.read_parts(map(Path, inputs.query_rows), "queries", rank.QUERY_COLUMNS)
    groups = rank.rank(
        encoder=snakemake.wildcards.encoder,
        mapper=snakemake.wildcards.mapper,
        heads=heads.load(mapper[0] if mapper else None),
        pool=[Path(path) for path in inputs.pool],
        queries=[Path(path) for path in inputs.queries],
        exemplars=Path(inputs.exemplar_embeddings),
        excluded=tables.read(Path(inputs.excluded), "excluded", ["image_id"]),
        query_rows=queries,
        exemplar_rows=tables.read(Path(inputs.exemplars), "exemplars", rank.EXEMPLAR_COLUMNS),
        **snakemake.params.settings,
        **blocks,
    )
    with (
        tables.writer(Path(outputs.ranks), tables.schema("ranks")) as ranks,
        tables.writer(Path(outputs.candidates), tables.schema("candidates")) as candidates,
    ):
        for group in progress(
            groups, total=ceil(len(queries) / blocks["query_group"]), what="groups of queries"
        ):
            ranks.write(group.ranks)
            candidates.write(group.candidates)
