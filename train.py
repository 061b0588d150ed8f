"""`accelerate launch train.py`: the `train` command of fastddpm; see `python train.py --help`."""

import sys

from fastddpm.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
