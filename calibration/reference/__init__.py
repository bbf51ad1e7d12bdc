"""The embedded reference workload: its tasks and how its models were trained."""
