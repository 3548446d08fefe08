"""Complaints of data health as hypotheses: their course, their trial by the rows' own truth, what a training leaves out."""
