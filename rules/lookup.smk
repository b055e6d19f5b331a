# Functions for the inputs and params of rules, most by the wildcards of a job.

import functools

from attrib_core.common import families
from attrib_core.storage import digests
from attrib_core.common.hashing import digest
from attrib_core.data.pool import source_state

PRIOR_FAMILY, PRIOR_OPTIONS = families.split(CONFIG["prior"])
PRIOR_MODULE = families.module("priors", PRIOR_FAMILY)
PRIOR_WANTED = CONFIG["customizer"]["prior_batch"] > 0


def kind_of(wildcards):
    """Return the kind of exemplar sets that a mapper is trained on; None for both, and if it is not trained."""
    kind = TRAINED_ON.get(wildcards.mapper, "both")
    return None if kind == "both" else kind


def kinds_of(wildcards):
    """Return the kinds of exemplar sets that a mapper is trained on; all if it is not trained."""
    kind = kind_of(wildcards)
    return [kind] if kind else list(KINDS)


def heads(wildcards):
    """Return the file of the tuned heads, as input; none for the embeddings as they are."""
    if wildcards.mapper == UNTUNED:
        return []
    return [f"{RUN}/{run_layout.MAPPER.format(encoder=wildcards.encoder, mapper=wildcards.mapper)}"]


def pool_rows(wildcards):
    """Return the range of source rows of a part, as [start, stop]."""
    first = int(wildcards.part) * CONFIG["parts"]["pool_images"]
    return [first, min(first + CONFIG["parts"]["pool_images"], CONFIG["pool"]["images"])]


def pool_source(wildcards):
    """Return the digest of what the source reads for a part, so that changed images of a folder are noticed."""
    start, stop = pool_rows(wildcards)
    try:
        return source_state(CONFIG["pool"]["source"], start=start, stop=stop, seed=CONFIG["seed"])
    except InputError as error:
        sys.exit(f"Error in the source of the pool: {error}")


def base_model_state():
    """Return the digest of the files of the base model, so that another model at the same path is noticed.

    The files are not an `input`: a fresh checkout gives them new times, and they are large to compare.
    """
    family, options = families.split(CONFIG["base_model"])
    try:
        files = families.module("base_models", family).files(**options)
        return digest([[path.name, digests.of_file(path)] for path in files])
    except InputError as error:
        sys.exit(f"Error in the base model: {error}")


def prior_reads(name, files):
    """Return these files as input if the family of prior images reads them, else nothing."""
    return files if PRIOR_WANTED and name in PRIOR_MODULE.READS else []


def prior_state(wildcards):
    """Return the digest of what the family reads besides its inputs, so that changed images of a folder are noticed."""
    if not PRIOR_WANTED or not hasattr(PRIOR_MODULE, "state"):
        return ""
    try:
        return PRIOR_MODULE.state(**PRIOR_OPTIONS)
    except InputError as error:
        sys.exit(f"Error in the config: {error.under('prior')}")


def prior_code(script):
    """Return the fingerprint of a script with the family of prior images."""
    return fingerprint(
        script,
        families=[f"priors/{PRIOR_FAMILY}", *others(PRIOR_MODULE, PRIOR_OPTIONS)],
        data=PRIOR_MODULE.files(**PRIOR_OPTIONS) if hasattr(PRIOR_MODULE, "files") else (),
        packages=getattr(PRIOR_MODULE, "PACKAGES", ()),
    )


def others(module, options):
    """Return the families of other kinds that a family loads."""
    return module.others(**options) if hasattr(module, "others") else []


def embed_code(wildcards):
    """Return the fingerprint of embedding by an encoder: its code, data files (weights) and packages."""
    return encoder_code(wildcards.encoder, "workflow_scripts/embed.py")


def feature_code(wildcards):
    """Return the fingerprint of the code on which the features themselves depend."""
    return encoder_code(wildcards.encoder, "attrib_core/features/embedding/encode.py")


@functools.cache
def encoder_code(encoder, script):
    """Return the fingerprint of a script with an encoder of the config, computed once for all its jobs."""
    members = families.members("encoders", CONFIG["encoders"][encoder])
    modules = {name: families.module("encoders", name) for name, _ in members}
    family, options = members[0]
    try:
        return fingerprint(
            script,
            families=[*(f"encoders/{name}" for name in modules), *others(modules[family], options)],
            data=modules[family].files(**options) if hasattr(modules[family], "files") else [],
            packages=[package for module in modules.values() for package in getattr(module, "PACKAGES", [])],
        )
    except InputError as error:
        sys.exit(f"Error in the config: {error.under(f'encoders.{encoder}')}")


def embed_encoder(wildcards):
    """Return the encoder's section of the config."""
    return CONFIG["encoders"][wildcards.encoder]


def embed_gpu(wildcards):
    """Return 1 for an encoder that computes on a device, else 0."""
    return encoder_gpu(wildcards.encoder)


@functools.cache
def encoder_gpu(encoder):
    """Return `embed_gpu` of an encoder, computed once: Snakemake calls that for every job."""
    members = families.members("encoders", CONFIG["encoders"][encoder])
    computing = members[1:] or members  # a fusion computes only through its parts
    return int(any("device" in families.parameters("encoders", family) for family, _ in computing))


def plot(name):
    """Declare a plot that `snakemake --report` shows next to the page."""
    return report(
        f"{RUN}/{run_layout.REPORT_PLOT.format(plot=name)}",
        caption=f"captions/{name}.rst",
        category="Plots",
        labels={"plot": name},
    )


def jobs_of(*rules, **wildcards):
    """Return the names of the jobs of some rules, one for each combination of wildcard values."""
    return [job for rule in rules for job in expand(run_layout.JOB_NAMES[rule], **wildcards)]
