"""What every room stands on: errors, random streams, digests of code, plugins, paths, processes."""
