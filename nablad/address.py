"""Where the service is, unless somebody says otherwise: the same for those who call it and for itself."""

__all__ = ["ADDRESS_VARIABLE", "DEFAULT_ADDRESS"]

ADDRESS_VARIABLE = "NABLA_SERVER"
DEFAULT_ADDRESS = "127.0.0.1:7471"
