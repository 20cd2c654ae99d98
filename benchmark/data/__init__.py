"""Text as bytes or tokens: corpora and manifests, downloads, batches that depend on a seed only."""
