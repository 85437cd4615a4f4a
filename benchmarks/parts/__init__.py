"""One module per measurement; each has `async def measure(context) -> figures`."""
