"""What is drawn: comparisons and checks as tables, files, plots and pages."""
