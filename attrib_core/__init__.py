"""Data attribution of text-to-image models: an open benchmark and toolkit.

The wings, from top to bottom; each may import what is below it:

    cli                                    the command line, one file a command
    config, report, abc_benchmark          the config and planning; the page; the published benchmark's files
    attribution                            ranking, metrics, calibration, attribution of one image
    features                               encoders, embedding, mapper heads, index
    diffusion                              base models, customization, synthesis
    data                                   sources, pool, exemplars, prompts
    runtime                                jobs, devices, locks, records, provenance
    storage                                atomic files, tables, schemas, the store, the layout of a run
    common                                 errors, validation, families, hashing
"""
