"""Common parts of all RPCs: bounds on messages, interceptors, error translation, pagination."""
