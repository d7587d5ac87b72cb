"""Train one model: `python train.py experiment=demo model=sema_nano`. See conf/ for all options."""

from semabench.commands import train

if __name__ == "__main__":
    train()
