"""What python -m study offers beside run: looking, stopping, going on, checking the machine."""
