"""Processes that call tasks through a fault, one module for each system; a module is also the app of its workers."""
