"""What a model stands on that is not ours, as its definition says it. Nothing is looked at here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from perennial.definition.values import Cron, Section


class Packages(Section):
    """Where it is known which packages are vulnerable, and which can be installed."""

    advisories: str | None = Field(
        None, description="A file, or a glob, of advisories: OSV's JSON or pip-audit's; relative to this file."
    )
    service: Literal["pypi", "osv"] | None = Field(None, description="Ask this service, by pip-audit.")
    osv_url: str | None = Field(None, pattern=r"^https?://", description="Of an OSV service of your own.")
    index: str | None = Field(
        None, pattern=r"^https?://", description="An index's simple API, such as https://packages.example/simple."
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Packages:
        if not (self.advisories or self.service or self.index):
            raise ValueError("packages needs advisories, service or index")
        if self.osv_url and self.service != "osv":
            raise ValueError("osv_url belongs to service: osv")
        return self


class Watch(Section):
    """What `perennial watch` looks at; without this section, nothing."""

    schedule: Cron | None = Field(None, description="Before the ingestion's, so that people know before it.")
    packages: Packages | None = None
    contract: str | None = Field(
        None, description="The source's contract, an ODCS v3 document: an http(s) address or a file, relative to this "
        "one. Columns, types, missing values and units are held against it.",
    )  # fmt: skip
    contract_table: str | None = Field(None, description="Which schema of the contract, where it has several.")
    source: bool = Field(True, description="The source's columns, their types, and whether values are missing.")
    openapi: str | None = Field(
        None, description="The OpenAPI document of the API behind the source: an http(s) address or a file, "
        "relative to this one.",
    )  # fmt: skip
    openapi_token_env: str | None = Field(
        None, pattern=r"^[A-Z][A-Z0-9_]*$", description="The variable with a bearer token for that address."
    )
