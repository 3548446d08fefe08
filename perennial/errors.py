"""The one exception family: what went wrong and what to do about it. No handling of errors belongs here.

Everything that a user can cause or mend is a `PerennialError`; the command line's single edge
(`perennial.cli.main`) turns it into one line on stderr and exit code 1. Anything else is a bug and
keeps its traceback.
"""

from __future__ import annotations

from perennial.redaction import redact


class PerennialError(Exception):
    """A refusal or failure with its remedy; what looks like a secret in either is hidden.

    Args:
        problem: What is wrong, naming the thing and its value.
        remedy: What the reader should do next, as an imperative sentence.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = redact(problem.rstrip("."))
        self.remedy = redact(remedy.rstrip("."))
        super().__init__(f"{self.problem}. {self.remedy}." if self.remedy else f"{self.problem}.")

    def __reduce__(self) -> tuple[type[PerennialError], tuple[str, str]]:
        return type(self), (self.problem, self.remedy)


class DefinitionError(PerennialError):
    """A model's YAML, its expectation suite or a setting is wrong."""


class DataError(PerennialError):
    """Rows or files that can't be used: unreadable, of the wrong shape, or missing columns."""


class ValidationRefused(PerennialError):
    """A batch failed a critical expectation; the tables are as they were."""


class NotFoundError(PerennialError):
    """A model, version, decision or file that does not exist."""


class ConflictError(PerennialError):
    """Somebody else was first: a claimed decision, a running retrain, a concurrent promotion."""


class ClaimedError(ConflictError):
    """Another run carries the decision out, or has: this one has nothing to do."""


class RegistryError(PerennialError):
    """The model registry or an artifact in it is unreachable, missing or not what was recorded."""


class ServiceError(PerennialError):
    """A server (Prefect, MLflow, the API) could not be started or reached."""


class StorageError(PerennialError):
    """The storage of tables or artifacts is full, refuses, or does not answer."""
