"""One distillation loss a file; logits.py and pruning.py are what losses on logits share."""
