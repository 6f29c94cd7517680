"""The command `nablad`, also as `python -m nablad`: the service, from where it is installed."""

from importlib import import_module

from nablad.import_path import put_in_order

__all__ = ["main"]


def main() -> None:
    """Runs the command. Nothing that is not of the standard library is imported before the order is right."""
    put_in_order()
    try:
        # By name: this package is also installed without the service's.
        command = import_module("service.daemon.cli").main
    except ModuleNotFoundError as missing:
        raise SystemExit(
            f"Error: the service is not installed whole, there is no {missing.name}: run "
            "pip install '.[server]' in the folder of nablad's source"
        ) from missing
    command()


if __name__ == "__main__":
    main()
