"""A run as one HTML page that needs no network: python -m densnet.report."""
