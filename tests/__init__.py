"""Tests of the package, of the book's equations, of its exercises and of its pages."""
