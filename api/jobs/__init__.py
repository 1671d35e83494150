"""Jobs: submit, list, control and delete them; read their metrics, events, logs and artifacts."""
