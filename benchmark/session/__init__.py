"""One command at work on one results folder."""
