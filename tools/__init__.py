"""Development tools: run from a checkout, not installed."""
