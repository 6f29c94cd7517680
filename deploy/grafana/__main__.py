"""Writes the boards' JSON: ``python -m deploy.grafana``, from the repository root."""

from deploy.grafana.rendering import rendered


def main() -> None:
    """Writes every board; a test holds the committed files to this."""
    for path, text in rendered():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
