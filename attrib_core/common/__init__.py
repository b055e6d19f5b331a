"""What every wing uses: errors, validation, families of plug-ins, content hashes, the hub's cache."""
