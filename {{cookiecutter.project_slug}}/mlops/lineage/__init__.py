"""What made a model, is that still so, and can it be made again."""
