# Features of all pictures by every encoder: of the pool and the queries in parts, of the exemplars at once.

from attrib_core import families


def embed_code(wildcards):
    """Fingerprint of the encoder: its code, the files that it names (weights), the packages it needs."""
    members = families.members("encoders", CONFIG["encoders"][wildcards.encoder])
    modules = {name: families.module("encoders", name) for name, _ in members}
    family, options = members[0]
    try:
        return code(
            "workflow_scripts/embed.py",
            *(f"encoders/{name}" for name in modules),
            *(modules[family].others(**options) if hasattr(modules[family], "others") else []),
            data=modules[family].files(**options) if hasattr(modules[family], "files") else [],
            packages=[
                "pillow",
                *(one for inner in modules.values() for one in getattr(inner, "PACKAGES", [])),
            ],
        )
    except InputError as error:
        sys.exit(f"Error in the config: {error.under(f'encoders.{wildcards.encoder}')}")


def embed_encoder(wildcards):
    """The encoder's section of the config."""
    return CONFIG["encoders"][wildcards.encoder]


def embed_gpu(wildcards):
    """One GPU for an encoder that computes on a device."""
    members = families.members("encoders", CONFIG["encoders"][wildcards.encoder])
    computing = members[1:] or members  # one that is made of others computes through them alone
    return int(any("device" in families.parameters("encoders", family) for family, _ in computing))


rule embed_pool_part:
    input:
        images=f"{RUN}/pool/part-{{part}}.parquet",
    output:
        embeddings=f"{RUN}/embeddings/{{encoder}}/pool/part-{{part}}.parquet",
    log:
        f"{RUN}/logs/embed_pool_part/{{encoder}}-{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/embed_pool_part/{{encoder}}-{{part}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        gpu=embed_gpu,
        decoding_threads=CONFIG["parts"]["decoding_threads"],
    params:
        ids="image_id",
        encoder=embed_encoder,
        code=embed_code,
    script:
        "../workflow_scripts/embed.py"


rule embed_queries_part:
    input:
        images=f"{RUN}/synthesized/part-{{part}}.parquet",
    output:
        embeddings=f"{RUN}/embeddings/{{encoder}}/queries/part-{{part}}.parquet",
    log:
        f"{RUN}/logs/embed_queries_part/{{encoder}}-{{part}}.log",
    benchmark:
        f"{RUN}/benchmarks/embed_queries_part/{{encoder}}-{{part}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        gpu=embed_gpu,
        decoding_threads=CONFIG["parts"]["decoding_threads"],
    params:
        ids="query_id",
        encoder=embed_encoder,
        code=embed_code,
    script:
        "../workflow_scripts/embed.py"


rule embed_exemplars:
    input:
        images=f"{RUN}/exemplars.parquet",
    output:
        embeddings=f"{RUN}/embeddings/{{encoder}}/exemplars.parquet",
    log:
        f"{RUN}/logs/embed_exemplars/{{encoder}}.log",
    benchmark:
        f"{RUN}/benchmarks/embed_exemplars/{{encoder}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        gpu=embed_gpu,
        decoding_threads=CONFIG["parts"]["decoding_threads"],
    params:
        ids="exemplar_id",
        encoder=embed_encoder,
        code=embed_code,
    script:
        "../workflow_scripts/embed.py"
