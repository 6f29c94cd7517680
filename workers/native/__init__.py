"""Native library: inner loops in C, called through ctypes. Where it is missing, Python code gives the same bits."""
