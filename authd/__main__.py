"""``python -m authd``: the same as the console script."""

from authd.cli import main

if __name__ == "__main__":
    main()
