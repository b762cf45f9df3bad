"""``python -m cutline.cli``: for torchrun, which starts modules."""

from cutline.cli.main import main

if __name__ == "__main__":
    main()
