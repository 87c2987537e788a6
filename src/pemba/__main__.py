"""`python -m pemba`."""

from pemba.cli.main import main

if __name__ == "__main__":
    main()
