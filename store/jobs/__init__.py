"""Jobs: state transitions, leases, user actions, and the records an attempt writes."""
