"""`mlflow-compute explain WORD`: the meaning of an error code or a cause, and what to do."""

import json

import click

from mlflow_backend.cli.output import report_errors


@click.command()
@click.argument("word", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@report_errors
def command(word: str | None, as_json: bool) -> None:
    """Explain the error code or cause WORD; without WORD, list all of them."""
    from mlflow_backend.errors import ConfigError, nearest
    from mlflow_backend.explanations import explain, texts

    if word is None:
        click.echo(json.dumps(texts(), indent=2) if as_json else "\n".join(texts()))
        return
    text = explain(word)
    if text is None:
        raise ConfigError(
            f"there is no code or cause '{word}'", code="NotFound", hint=nearest(word, texts())
        )
    click.echo(json.dumps({"word": word, "text": text}, indent=2) if as_json else text)
