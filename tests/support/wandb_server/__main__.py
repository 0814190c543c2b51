"""`python -m support.wandb_server`."""

from .server import main

if __name__ == "__main__":
    main()
