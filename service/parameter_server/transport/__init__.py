"""Connections of workers: acceptor, frames in and out, members."""
