"""Reports and comparisons: tables, figures, pages."""
