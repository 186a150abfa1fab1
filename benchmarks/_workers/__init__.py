"""Training steps in tilefuse and its peers, each in a process of its own; `train_step.py` drives them."""
