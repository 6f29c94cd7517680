"""The command `nablad`, also as `python -m nablad`: runs the installed service."""

from importlib import import_module

from nablad.import_path import put_in_order

__all__ = ["main"]


def main() -> None:
    """Puts the import path in order, then runs the command; imports only the standard library before."""
    put_in_order()
    try:
        # By name, because client machines have this package without the service.
        command = import_module("service.daemon.cli").main
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"Error: the service is not completely installed, {missing.name} is missing: run "
            "pip install '.[server]' in the folder of nablad's source"
        ) from missing
    command()


if __name__ == "__main__":
    main()
