"""The calibration file of a video: which one it is, what formats it may have, what it says."""
