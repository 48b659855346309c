"""The test kit that ships with PyFlue: what its own tests and yours are written with."""
