"""`python -m endocorpus`."""

from endocorpus.cli import main

if __name__ == "__main__":
    main(prog_name="endocorpus")
