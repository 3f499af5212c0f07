"""`python -m endofm`."""

from endofm.cli import main

if __name__ == "__main__":
    main(prog_name="endofm")
