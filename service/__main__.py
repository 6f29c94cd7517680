"""`python -m service`: the command `nablad`."""

from nablad.__main__ import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
