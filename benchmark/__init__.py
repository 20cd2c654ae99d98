"""A reproducible benchmark harness for methods that grow language models during training."""
