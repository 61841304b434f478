"""Plain functions over arrays: signatures, similarity, convergence, calibration, confidence, accuracy, splits."""
