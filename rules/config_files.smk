# Checks the files of the config as `python -m attrib_core check` does, since Snakemake takes what is in them without a
# word: the last of two equal keys, 0777 as 511. It reads those of --configfile before this; where its own reading fails,
# as for a date that does not exist, that is its error.

import sys
from pathlib import Path

from attrib_core.common.errors import InputError
from attrib_core.storage import yaml_files

for path in workflow.overwrite_configfiles or filter(Path.exists, [Path("config.yaml")]):
    try:
        yaml_files.read(Path(path))
    except InputError as error:
        sys.exit(f"Error in the config: {error}")
