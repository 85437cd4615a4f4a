"""Windows and mergeable aggregates: pure functions of event time, without I/O."""
