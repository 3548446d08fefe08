"""`perennial web`."""

from __future__ import annotations

import click


@click.command()
@click.option("--host", help="The address to serve on; beyond this machine it needs tokens. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 8080, or PERENNIAL_WEB_PORT.")
@click.option(
    "--new-token", nargs=2, metavar="ROLE NAME",
    help="Print a new token for a person, and exit; roles: view, label, approve, admin.",
)  # fmt: skip
def web(host: str | None, port: int | None, new_token: tuple[str, str] | None) -> None:
    """Serve the page: every model at a glance, its decisions, and what waits for a person."""
    from deployments.web.settings import load_web_settings
    from deployments.web.settings import new_token as make_token

    if new_token is not None:
        token, entry = make_token(*new_token)
        click.echo(f"token, for {new_token[1]} (shown only now): {token}")
        click.echo(f"for the server: PERENNIAL_WEB_TOKENS={entry}  (several: separated by commas)")
        return
    from deployments.web.server import serve
    from perennial.settings import load_settings

    settings, own = load_settings(), load_web_settings()
    address = (host or settings.host, port or settings.web_port)
    click.echo(f"http://{address[0]}:{address[1]}", err=True)
    serve(*address, settings, own)
