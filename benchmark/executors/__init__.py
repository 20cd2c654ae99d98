"""Where stages run: one interface, several machines."""
