"""Run `import-weights` in a forked process for each file named on standard input; print one JSON answer per line."""

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from frs.detectors import import_weights

for line in sys.stdin:
    source = Path(line.strip())
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        output = io.StringIO()
        with redirect_stdout(output):
            code = import_weights.run(source, source.parent / "out" / f"{source.name}.safetensors")
        os.write(writer, json.dumps({"code": code, "output": json.loads(output.getvalue())}).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        answer = json.loads(answers.read() or b"null")
    _, status = os.waitpid(pid, 0)
    print(json.dumps({"name": source.name, "answer": answer, "status": status}), flush=True)
