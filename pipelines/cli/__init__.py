"""The command line i2l."""
