"""Small applications under measurement; the harness starts them with `faust -A benchmarks.apps.NAME worker`."""
