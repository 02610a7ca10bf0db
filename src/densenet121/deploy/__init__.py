"""What a trained network is used for: predict, compare, calibrate, export, serve."""
