"""What surrounds the computation: jobs, progress, devices, locks, records and provenance."""
