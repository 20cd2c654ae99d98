"""How every method is trained and measured alike, and the class that a method subclasses."""
