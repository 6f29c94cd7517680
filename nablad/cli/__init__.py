"""The command `nabla`: a client of the service for people and scripts."""

from nablad.cli.app import main

__all__ = ["main"]
