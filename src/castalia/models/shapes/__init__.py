"""Systems that make solid things."""
