"""The store: results that are expensive to compute, kept once for all runs under content keys."""
