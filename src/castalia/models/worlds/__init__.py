"""Models of environments, and controllers that act in them."""
