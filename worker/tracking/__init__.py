"""Forward metrics, parameters and result files of jobs to the trackers that the operator has set."""
