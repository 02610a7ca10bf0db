"""The conventions of other libraries: torch's datasets, scikit-learn's estimators."""
