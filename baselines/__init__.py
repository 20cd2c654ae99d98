"""The contestants: one published growth method per module; nothing in `benchmark` imports them."""
