"""Text as bytes: corpora and their manifests, downloads, and batches that depend on a seed only."""
