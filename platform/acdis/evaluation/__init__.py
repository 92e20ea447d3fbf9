"""How a trained model is scored: 15 subsets from one pass over the windows, metrics per case, averages.

`sliding` needs torch; `metrics` needs NumPy, and MONAI for HD95 alone; `records` needs neither, so that
reports can read scores without them.
"""
