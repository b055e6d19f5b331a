# Functions that rules ask for their inputs and params: each gives what belongs to one job.

import functools

from attrib_core.common import families
from attrib_core.storage import digests
from attrib_core.common.hashing import digest
from attrib_core.data.pool import source_state

PRIOR_FAMILY, PRIOR_OPTIONS = families.split(CONFIG["prior"])
PRIOR_MODULE = families.module("priors", PRIOR_FAMILY)
PRIOR_WANTED = CONFIG["customizer"]["prior_batch"] > 0


def kind_of(wildcards):
    """The kind of sets that a mapper is trained on; None for both, and where it is not trained."""
    kind = TRAINED_ON.get(wildcards.mapper, "both")
    return None if kind == "both" else kind


def kinds_of(wildcards):
    """The kinds of sets that a mapper is for: those that it is trained on; all where it is not trained."""
    kind = kind_of(wildcards)
    return [kind] if kind else list(KINDS)


def heads(wildcards):
    """The file of the tuned heads, as input; none where embeddings are used as they are."""
    if wildcards.mapper == UNTUNED:
        return []
    return [f"{RUN}/{run_layout.MAPPER.format(encoder=wildcards.encoder, mapper=wildcards.mapper)}"]


def pool_rows(wildcards):
    """First source row of a part, and the one after its last."""
    first = int(wildcards.part) * CONFIG["parts"]["pool_images"]
    return [first, min(first + CONFIG["parts"]["pool_images"], CONFIG["pool"]["images"])]


def pool_source(wildcards):
    """Digest of what the source reads for a part, so that changed images of a folder are noticed."""
    start, stop = pool_rows(wildcards)
    try:
        return source_state(CONFIG["pool"]["source"], start=start, stop=stop, seed=CONFIG["seed"])
    except InputError as error:
        sys.exit(f"Error in the source of the pool: {error}")


def base_model_state():
    """Digest of the files of the base model, so that another model in the same place is noticed.

    They are no `input`: a fresh checkout gives files new times, and a base model is large to compare.
    """
    family, options = families.split(CONFIG["base_model"])
    try:
        files = families.module("base_models", family).files(**options)
        return digest([[path.name, digests.of_file(path)] for path in files])
    except InputError as error:
        sys.exit(f"Error in the base model: {error}")


def prior_reads(name, files):
    """What the family of prior images takes them from, as input; nothing where it does not."""
    return files if PRIOR_WANTED and name in PRIOR_MODULE.READS else []


def prior_state(wildcards):
    """Digest of what the family reads beside its inputs, so that changed images of a folder are noticed."""
    if not PRIOR_WANTED or not hasattr(PRIOR_MODULE, "state"):
        return ""
    try:
        return PRIOR_MODULE.state(**PRIOR_OPTIONS)
    except InputError as error:
        sys.exit(f"Error in the config: {error.under('prior')}")


def prior_code(script):
    """Fingerprint of what a script and the family of prior images reach."""
    return code(
        script,
        f"priors/{PRIOR_FAMILY}",
        *others(PRIOR_MODULE, PRIOR_OPTIONS),
        data=PRIOR_MODULE.files(**PRIOR_OPTIONS) if hasattr(PRIOR_MODULE, "files") else (),
        packages=getattr(PRIOR_MODULE, "PACKAGES", ()),
    )


def others(module, options):
    """Families of other kinds that one loads, as it says itself."""
    return module.others(**options) if hasattr(module, "others") else []


def embed_code(wildcards):
    """Fingerprint of the encoder: its code, the files that it names (weights), the packages it needs."""
    return encoder_code(wildcards.encoder, "workflow_scripts/embed.py")


def feature_code(wildcards):
    """The same of what decides about features alone."""
    return encoder_code(wildcards.encoder, "attrib_core/features/embedding/compute.py")


@functools.cache
def encoder_code(encoder, script):
    """A script's fingerprint with the encoder of that name in the config, once for all its jobs."""
    members = families.members("encoders", CONFIG["encoders"][encoder])
    modules = {name: families.module("encoders", name) for name, _ in members}
    family, options = members[0]
    try:
        return code(
            script,
            *(f"encoders/{name}" for name in modules),
            *others(modules[family], options),
            data=modules[family].files(**options) if hasattr(modules[family], "files") else [],
            packages=[one for inner in modules.values() for one in getattr(inner, "PACKAGES", [])],
        )
    except InputError as error:
        sys.exit(f"Error in the config: {error.under(f'encoders.{encoder}')}")


def embed_encoder(wildcards):
    """The encoder's section of the config."""
    return CONFIG["encoders"][wildcards.encoder]


def embed_gpu(wildcards):
    """One GPU for an encoder that computes on a device."""
    return encoder_gpu(wildcards.encoder)


@functools.cache
def encoder_gpu(encoder):
    """The same by the encoder's name in the config, once for all its jobs: Snakemake asks for each."""
    members = families.members("encoders", CONFIG["encoders"][encoder])
    computing = members[1:] or members  # one that is made of others computes through them alone
    return int(any("device" in families.parameters("encoders", family) for family, _ in computing))


def plot(name):
    """A plot that `snakemake --report` shows beside the page."""
    return report(
        f"{RUN}/{run_layout.REPORT_PLOT.format(plot=name)}",
        caption=f"captions/{name}.rst",
        category="Plots",
        labels={"plot": name},
    )
