"""Names for ids: cgroups, containers, processes, topology."""
