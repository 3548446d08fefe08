"""Where this installation keeps its state and reaches its servers, from the environment. Nothing about a model.

Every setting has a default that works on a laptop; `PERENNIAL_HOME` alone moves everything.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from perennial.errors import DefinitionError

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """The settings; each is read from `PERENNIAL_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="PERENNIAL_", frozen=True, extra="forbid")

    home: Path = Field(Path(".perennial"), description="The folder of all state: tables, registry, servers' databases.")
    models: str = Field(
        str(PROJECT_ROOT / "deployments"),
        description=f"Folders of model definitions, separated by {os.pathsep!r}.",
    )
    expectations: str = Field(
        str(PROJECT_ROOT / "expectations"),
        description=f"Folders of expectation suites, separated by {os.pathsep!r}.",
    )
    tables: str | None = Field(None, description="The tables' root: a folder or s3://…; default: HOME/tables.")
    tracking_uri: str | None = Field(
        None, repr=False, description="MLflow's database or server; default: HOME/mlflow.db."
    )
    artifacts: str | None = Field(
        None, description="MLflow's artifact root; default: HOME/artifacts, or what a remote server has."
    )
    prefect_api_url: str | None = Field(None, description="An existing Prefect server's /api address.")
    pool: str | None = Field(None, description="The Prefect work pool whose workers execute the runs.")
    image: str | None = Field(None, description="The image that the pool runs, instead of its template's.")
    host: str = Field("127.0.0.1", description="The address that our servers bind to.")
    prefect_port: int = Field(4200, ge=1, le=65535)
    mlflow_port: int = Field(5000, ge=1, le=65535)
    api_port: int = Field(8000, ge=1, le=65535)
    warm_commands: bool = Field(
        True, description="Whether `perennial up` keeps a process that has imported all that short commands need."
    )
    flow_run_days: float = Field(
        90.0,
        gt=0.05,
        description="So long Prefect's server of `perennial up` keeps finished runs, with logs and pages.",
    )
    event_days: float = Field(14.0, gt=0.05, description="So long it keeps events; heartbeats for a week at most.")
    web_port: int = Field(8080, ge=1, le=65535)
    revision: str = Field("", description="The code's commit, where it runs without its repository: in an image.")
    patience_seconds: float = Field(
        120.0, ge=0, description="How long a flow waits for a registry or a storage that is away before it fails."
    )
    lease_seconds: float = Field(
        60.0, ge=2, description="After so long without a sign of life a retraining or ingestion may be taken over."
    )

    @property
    def home_path(self) -> Path:
        return self.home.expanduser().resolve()

    @property
    def model_folders(self) -> list[Path]:
        return [Path(part).expanduser().resolve() for part in self.models.split(os.pathsep) if part]

    @property
    def expectation_folders(self) -> list[Path]:
        return [Path(part).expanduser().resolve() for part in self.expectations.split(os.pathsep) if part]

    @property
    def tables_root(self) -> str:
        return self.tables or str(self.home_path / "tables")

    @property
    def mlflow_uri(self) -> str:
        """MLflow's database or server; of PostgreSQL's drivers the one that is installed with Perennial, or yours."""
        uri = self.tracking_uri or f"sqlite:///{self.home_path / 'mlflow.db'}"
        scheme, separator, rest = uri.partition("://")
        if scheme in ("postgres", "postgresql") and importlib.util.find_spec("psycopg2") is None:
            return f"postgresql+pg8000{separator}{rest}"
        return uri

    @property
    def artifacts_root(self) -> str:
        """Where artifacts are kept that this installation keeps itself."""
        return self.artifacts or str(self.home_path / "artifacts")

    @property
    def experiments_root(self) -> str | None:
        """Where new experiments are told to keep their artifacts; None where MLflow's server is remote and decides."""
        remote = self.mlflow_uri.startswith(("http://", "https://"))
        return None if remote and not self.artifacts else self.artifacts_root

    @property
    def prefect_url(self) -> str:
        return self.prefect_api_url or f"http://{self.host}:{self.prefect_port}/api"


def load_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        DefinitionError: A variable's value breaks its rule; it is named.
    """
    try:
        return Settings()
    except ValidationError as error:
        item = error.errors()[0]
        name = "PERENNIAL_" + "_".join(str(part) for part in item["loc"]).upper()
        raise DefinitionError(f"{name} = {item.get('input')!r}: {item['msg']}", f"Correct or unset {name}") from error
