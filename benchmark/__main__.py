"""`python -m benchmark` is `growbench`."""

from benchmark.cli.main import main

if __name__ == "__main__":
    main()
