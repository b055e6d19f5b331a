"""What surrounds the work: jobs, progress, devices, locks, records, provenance."""
