"""The HTML report: one file that opens from disk, with every table, figure and number's origin."""
