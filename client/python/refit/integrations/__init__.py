"""Plugs for training and inference frameworks; each imports its framework only when it is used."""
