"""One distillation loss a file; logits.py and the add-ons it names are what losses on logits share."""
