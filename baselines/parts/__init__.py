"""Architectures and operators that methods are made of, one idea per file."""
