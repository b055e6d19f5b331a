"""Draw the demo's images: objects on backgrounds, in styles and media."""
