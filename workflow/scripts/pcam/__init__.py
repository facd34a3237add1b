"""What more than one stage of the PCam pipeline needs; imports go down only (see .importlinter)."""
