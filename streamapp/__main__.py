"""`python -m streamapp`: the same as the command `streamapp`."""

from streamapp.cli.main import run

if __name__ == "__main__":
    run()
