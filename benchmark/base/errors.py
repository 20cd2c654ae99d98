"""Exceptions that name a user's mistake in one line; `assert` is kept for our own invariants."""


class BenchmarkError(Exception):
    """Base class of every error the harness raises on purpose; the command line exits with 2."""


class ConfigError(BenchmarkError):
    """A configuration is malformed, incomplete or contradictory."""


class SizeError(ConfigError):
    """A method cannot pass through the sizes that its ladder asks for."""


class GrowthError(BenchmarkError):
    """A growth operator cannot map this model to that target."""


class CheckpointError(BenchmarkError):
    """A trained model on disk is damaged, contradicts itself, or is of a kind that cannot grow."""


class DataError(BenchmarkError):
    """A corpus is missing, damaged, unreachable or too short for what was asked."""


class ArchiveError(DataError):
    """An archive is sound, and of a kind or content that is not unpacked here."""


class RecordError(BenchmarkError):
    """A record or a results folder is damaged, locked, unwritable or from another version."""


class ChangedError(BenchmarkError):
    """A corpus or code is no longer what a run was planned with, so its id would vouch for else."""


class MethodError(BenchmarkError):
    """The code of a method has failed, or has changed what it shares with others."""


class DivergenceError(BenchmarkError):
    """Training left the finite numbers; the run is recorded as diverged, not lost."""
