"""From a configuration to runs and their stages; nothing here trains."""
