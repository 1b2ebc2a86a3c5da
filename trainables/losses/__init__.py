"""Distillation losses, one a file; common/ holds their shared parts, state.py the interface of losses that learn."""
