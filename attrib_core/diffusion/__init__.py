"""What base models, customization and synthesis share: a diffusers pipeline, many models at a time."""
