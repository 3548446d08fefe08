"""`perennial serve`."""

from __future__ import annotations

import click


@click.command()
@click.option("--host", help="The address to serve on; beyond this machine it needs tokens. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8000, or PERENNIAL_API_PORT.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that answer. Default: 1.")
@click.option(
    "--new-token", type=click.Choice(["predict", "label", "admin"]), help="Print a new token of a scope, and exit."
)
def serve(host: str | None, port: int | None, workers: int | None, new_token: str | None) -> None:
    """Serve the champions of all models over HTTP until Ctrl-C."""
    from perennial.serving import settings as serving_settings
    from perennial.settings import load_settings

    if new_token is not None:
        token, digest = serving_settings.new_token()
        click.echo(f"token, for the client (shown only now): {token}")
        click.echo(f"for the server: PERENNIAL_SERVING_TOKENS={new_token}:{digest}  (several: separated by commas)")
        return
    from perennial.serving.processes.server import serve as run

    settings = load_settings()
    serving = serving_settings.load_serving_settings()
    if workers is not None:
        serving = serving.model_copy(update={"workers": workers})
    run(host or settings.host, settings.api_port if port is None else port, settings, serving)
