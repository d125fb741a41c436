"""Tables and plots of run records."""
