"""One distillation loss a file; losses share logits.py and its add-ons, those on maps of logits per_pixel.py."""
