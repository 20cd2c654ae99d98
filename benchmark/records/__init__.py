"""What a run leaves behind: events, provenance, its reporting card, the plan of its suite."""
