"""`python -m fastddpm`, and so `accelerate launch -m fastddpm train`."""

from fastddpm.cli import main

main()
