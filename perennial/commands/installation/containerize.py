"""`perennial containerize`."""

from __future__ import annotations

from pathlib import Path

import click

from perennial.commands.output import print_json
from perennial.commands.running import json_option


@click.command()
@click.argument("model")
@click.option("--version", "number", type=int, help="The version; default: the champion.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="The folder to write; default: HOME/images/MODEL-VERSION."
)
@click.option("--build", "wanted", is_flag=True, help="Build the image, with docker, podman or buildah.")
@click.option(
    "--trained-lock", is_flag=True, help="Take the packages of the training although this code's lock has changed."
)
@json_option
def containerize(
    model: str, number: int | None, output: Path | None, wanted: bool, trained_lock: bool, as_json: bool
) -> None:
    """Write one version as a folder that an image is built from; the image needs no registry."""
    from perennial.errors import NotFoundError
    from perennial.serving.versions import baking
    from perennial.workspace import open_workspace

    workspace = open_workspace()
    definition = workspace.definition(model)
    registry = workspace.registry
    version = registry.champion(model) if number is None else registry.version(model, number)
    if version is None:
        raise NotFoundError(f"{model} has no champion yet", f"Train one: `perennial retrain {model}`")
    folder = output or workspace.home / "images" / f"{model}-{version.number}"
    baked = baking.bake(workspace, definition, version, folder, trained_lock=trained_lock)
    if wanted:
        baking.build(baked)
    if as_json:
        print_json({**baked.__dict__, "built": wanted})
        return
    click.echo(f"version {baked.version} of {model} is in {baked.folder}")
    if wanted:
        click.echo(f"built {baked.tag}; run it with: docker run -p 127.0.0.1:8000:8000 --read-only --tmpfs /tmp \\")
        click.echo(
            f"  -e PERENNIAL_SERVING_TOKENS=predict:DIGEST {baked.tag}   (`perennial serve --new-token predict`)"
        )
    else:
        click.echo(f"build it with: docker build --tag {baked.tag} {baked.folder}")
