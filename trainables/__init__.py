"""What a trial trains: the training loop, tasks, losses, nets and data."""
