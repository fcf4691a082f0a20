"""Stores: the eventsourcing library with bulk recorders. One commit takes events, inbox, positions and leaves."""
