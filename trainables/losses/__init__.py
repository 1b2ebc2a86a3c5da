"""Distillation losses, one a file: on logits, features and pixels. common/ holds their shared parts, state.py the
interface of losses that learn.
"""
