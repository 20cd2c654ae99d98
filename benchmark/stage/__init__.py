"""One stage: load or grow, train, evaluate, record; and the store of finished ones."""
