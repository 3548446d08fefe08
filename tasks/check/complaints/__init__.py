"""Complaints of data health as hypotheses: their course, their trial by truth, and what a training leaves out."""
